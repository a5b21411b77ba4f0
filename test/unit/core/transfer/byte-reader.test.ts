import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ByteReader } from "../../../../agent/core/transfer/byte-reader.ts";
import { rejectionOf } from "../../../support/failure.ts";

interface Source extends AsyncIterable<Uint8Array> {
  closed: boolean;
}

/** Pieces as a connection gives them; `closed` tells whether it was let go. */
function source(...pieces: readonly (string | Uint8Array)[]): Source {
  const stream: Source = {
    closed: false,
    async *[Symbol.asyncIterator]() {
      try {
        for (const piece of pieces) yield Buffer.from(piece);
      } finally {
        stream.closed = true;
      }
    },
  };
  return stream;
}

test("takes exact amounts, however the bytes are cut into pieces", async () => {
  const lengths = fc.array(fc.nat({ max: 30 }), { maxLength: 10 });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array()), lengths, async (pieces, wanted) => {
      const all = Buffer.concat(pieces);
      const reader = new ByteReader(source(...pieces));
      let at = 0;
      for (const length of wanted) {
        if (at + length > all.length) {
          const failure = await rejectionOf(reader.take(length));
          expect(failure.code).toBe("ARCHIVE_TRUNCATED");
          expect(failure.message).toContain(`ends ${at + length - all.length} bytes before`);
          return;
        }
        expect(await reader.take(length)).toEqual(all.subarray(at, at + length));
        at += length;
      }
    }),
  );
});

test("skips and passes on pieces in between", async () => {
  const reader = new ByteReader(source("abc", "def", "ghi"));
  await reader.skip(2);
  const pieces: string[] = [];
  for await (const piece of reader.pieces(5)) pieces.push(Buffer.from(piece).toString());
  expect(pieces).toEqual(["c", "def", "g"]);
  expect((await reader.take(2)).toString()).toBe("hi");
});

test("does not read on once it has enough", async () => {
  let asked = 0;
  const reader = new ByteReader({
    [Symbol.asyncIterator]: () => ({
      next: async () => ({ done: false, value: Buffer.from(String(asked++)) }),
    }),
  });
  await reader.take(0);
  expect(asked).toBe(0);
  await reader.take(2);
  expect(asked).toBe(2);
});

describe("the end of the source", () => {
  test("in the middle of a skip is a truncated archive", async () => {
    const failure = await rejectionOf(new ByteReader(source("abc")).skip(5));
    expect(failure.code).toBe("ARCHIVE_TRUNCATED");
    expect(failure.message).toContain("ends 2 bytes before");
  });

  test("by an error is that error", async () => {
    const broken: AsyncIterable<Uint8Array> = {
      async *[Symbol.asyncIterator]() {
        yield Buffer.from("abc");
        throw new Error("cut");
      },
    };
    const reader = new ByteReader(broken);
    expect((await reader.take(3)).toString()).toBe("abc");
    await expect(reader.take(1)).rejects.toThrow("cut");
  });
});

test("lets go of the source when it is closed, begun or not, and where there is nothing to let go", async () => {
  const stream = source("abc", "def");
  const reader = new ByteReader(stream);
  await reader.take(1);
  await reader.close();
  expect(stream.closed).toBe(true);
  await new ByteReader(source()).close();
  await new ByteReader({
    [Symbol.asyncIterator]: () => ({ next: async () => ({ done: true, value: undefined }) }),
  }).close();
});

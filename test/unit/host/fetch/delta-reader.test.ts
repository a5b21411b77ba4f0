import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { DeltaReader } from "../../../../agent/host/fetch/delta-reader.ts";
import type { Delta } from "../../../../agent/core/transfer/delta.ts";
import { PullError } from "../../../../agent/core/errors.ts";
import type { Mirror } from "../../../../agent/core/ports.ts";

const ARCHIVE = "a".repeat(64);

/** An archive of deltas that follow each other, and a mirror that serves it. */
function archiveOf(sizes: readonly number[], serve?: (from: number) => void) {
  const pieces = sizes.map((size, at) => Buffer.alloc(size, at + 1));
  const bytes = Buffer.concat(pieces);
  let offset = 0;
  const deltas = pieces.map((piece): Delta => {
    const delta = {
      ...{ base: "/nix/store/base", replacements: new Map<string, string>() },
      ...{ archive: { sha256: ARCHIVE, size: bytes.length }, offset, size: piece.length },
      sha256: createHash("sha256").update(piece).digest("hex"),
    };
    offset += piece.length;
    return delta;
  });
  const requests: { from: number; to: number }[] = [];
  const mirror = {
    ranges: true,
    address: "test",
    async *readArchive(_: string, { from, to }: { from: number; to: number }) {
      requests.push({ from, to });
      await Promise.resolve();
      serve?.(from);
      yield bytes.subarray(from, to);
    },
  };
  return { deltas, pieces, bytes, requests, mirror };
}

function readerOf(deltas: readonly Delta[], mirror: object) {
  let received = 0;
  const reader = new DeltaReader(deltas, mirror as Mirror, {
    signal: new AbortController().signal,
    onBytes: (count) => (received += count),
  });
  return { reader, received: () => received };
}

const WAIT = { timeout: 60_000, interval: 5 };

test("deltas come in the order asked for, by few requests, and one batch ahead", async () => {
  const size = 100 * 1024;
  const { deltas, pieces, bytes, requests, mirror } = archiveOf(Array<number>(7).fill(size));
  // The order of imports is not that of the archive.
  const order = [1, 0, 2, 6, 3, 5, 4];
  const { reader, received } = readerOf(
    order.map((at) => deltas[at]!),
    mirror,
  );
  await expect.poll(() => requests, WAIT).toEqual([{ from: 0, to: 2 * size }]);
  expect((await reader.take(deltas[1]!)).equals(pieces[1] as Buffer)).toBe(true);
  // 2 and 6 lie apart.
  await expect.poll(() => requests, WAIT).toHaveLength(3);
  for (const at of order.slice(1)) {
    expect((await reader.take(deltas[at]!)).equals(pieces[at] as Buffer)).toBe(true);
  }
  expect(received()).toBe(bytes.length);
  await reader.close();
});

test("a mirror that has only some of them is asked for one after the other", async () => {
  const { deltas, pieces, mirror } = archiveOf([10, 20, 30], (from) => {
    if (from <= 10) throw new PullError("ARCHIVE_PARTIAL", "not on this stick");
  });
  const { reader } = readerOf(deltas, mirror);
  for (const at of [0, 1]) {
    await expect(reader.take(deltas[at]!)).rejects.toMatchObject({
      code: "ARCHIVE_PARTIAL",
    });
  }
  expect((await reader.take(deltas[2]!)).equals(pieces[2] as Buffer)).toBe(true);
});

test("a mirror that turns out to serve no ranges is not read again and again", async () => {
  const { deltas, requests, mirror } = archiveOf(Array<number>(3).fill(200 * 1024), () => {
    mirror.ranges = false;
  });
  const { reader } = readerOf(deltas, mirror);
  await reader.take(deltas[0]!);
  for (const delta of deltas.slice(1)) {
    await expect(reader.take(delta)).rejects.toMatchObject({ code: "ARCHIVE_PARTIAL" });
  }
  expect(requests).toHaveLength(1);
});

test("a delta that is not the signed one is refused", async () => {
  const { deltas, mirror } = archiveOf([10, 10]);
  const other = { ...deltas[1]!, sha256: "0".repeat(64) };
  const { reader } = readerOf([other], mirror);
  await expect(reader.take(other)).rejects.toMatchObject({ code: "ARCHIVE_CORRUPT" });
});

test("a mirror's error reaches whoever takes the next delta, and closing ends a read", async () => {
  const { deltas, requests, mirror } = archiveOf(Array<number>(2).fill(200 * 1024), (from) => {
    if (from > 0) throw new PullError("MIRROR_UNREACHABLE", "gone");
  });
  const { reader } = readerOf(deltas, mirror);
  await reader.take(deltas[0]!);
  // The next read has been begun, and has failed before anybody asks for it.
  await expect.poll(() => requests, WAIT).toHaveLength(2);
  await expect(reader.take(deltas[1]!)).rejects.toMatchObject({
    code: "MIRROR_UNREACHABLE",
  });
  await reader.close();
});

test("closing stops a read that hangs", async () => {
  const { deltas } = archiveOf([10]);
  let [begun, stopped] = [false, false];
  const { reader } = readerOf(deltas, {
    ...{ ranges: true, address: "test" },
    async *readArchive(_: string, __: object, signal: AbortSignal) {
      yield Buffer.from("x");
      begun = true;
      await new Promise<void>((resolve) => {
        signal.addEventListener("abort", () => {
          resolve();
        });
      });
      stopped = true;
      throw new PullError("INTERRUPTED", "stopped");
    },
  });
  await expect.poll(() => begun, WAIT).toBe(true);
  await reader.close();
  expect(stopped).toBe(true);
});

import { describe, expect, test } from "vitest";
import { isNarMember, readIndex } from "../../../../agent/core/formats/archive-index.ts";
import { planRuns, type Run } from "../../../../agent/core/transfer/fetch-plan.ts";
import { readRun } from "../../../../agent/core/transfer/run-reader.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { chainArchive, SAMPLE_KEY } from "../../../support/sample-archive.ts";

const ARCHIVE = chainArchive();
const CONTENTS = readIndex(ARCHIVE.compressed, ARCHIVE.release, [SAMPLE_KEY.publicKey]);
const [LIBRARY = "", PROGRAM = "", SYSTEM = ""] = ARCHIVE.nars.keys();
const WHOLE = plan([LIBRARY, 0], [PROGRAM, 0], [SYSTEM, 0]);

/** The run that brings these NARs, of each of which so many bytes are held. */
function plan(...missing: [name: string, have: number][]): Run {
  const [run, ...others] = planRuns(CONTENTS, new Map(missing));
  if (!run || others.length > 0) throw new Error("expected one run");
  return run;
}

interface Reading {
  /** What `onNar` got: name, bytes that were held, contents. */
  readonly nars: [name: string, have: number, contents: string][];
  closed: boolean;
}

/** Reads a run of these bytes, which come in pieces of `size`. */
async function read(run: Run, bytes: Uint8Array, contents = CONTENTS, size = 100) {
  const reading: Reading = { nars: [], closed: false };
  async function* source(): AsyncGenerator<Uint8Array> {
    try {
      for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
    } finally {
      reading.closed = true;
    }
  }
  const reads = readRun(run, contents, source(), async (member, have, pieces) => {
    const parts: Uint8Array[] = [];
    for await (const piece of pieces) parts.push(piece);
    reading.nars.push([member.name, have, Buffer.concat(parts).toString("latin1")]);
  });
  return { reading, reads };
}

const honest = (run: Run): Buffer => ARCHIVE.bytes.subarray(run.from, run.to);
const narOf = (name: string): string => ARCHIVE.nars.get(name)?.toString("latin1") ?? "";

/** Offset of a member's header within the whole run. */
function offsetOf(name: string): number {
  const member = CONTENTS.members.find((one) => one.name === name);
  if (!member) throw new Error(`no member ${name}`);
  return member.headerOffset - WHOLE.from;
}

/** The whole run's bytes with one that is wrong. */
function flipped(at: number): Buffer {
  const bytes = Buffer.from(honest(WHOLE));
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes;
}

async function refusal(bytes: Uint8Array, run = WHOLE) {
  const { reading, reads } = await read(run, bytes);
  const { code, message } = await rejectionOf(reads);
  expect(reading.closed).toBe(true);
  return { code, message, nars: reading.nars.map(([name]) => name) };
}

describe("a run", () => {
  test("gives every NAR in its order, from any pieces, and closes its source", async () => {
    for (const size of [1, 100, 512, 1_000_000]) {
      const { reading, reads } = await read(WHOLE, honest(WHOLE), CONTENTS, size);
      await reads;
      expect(reading.closed).toBe(true);
      expect(reading.nars).toEqual(
        [LIBRARY, PROGRAM, SYSTEM].map((name) => [name, 0, narOf(name)]),
      );
    }
  });

  test("skips what nobody wants, but checks its header and padding", async () => {
    const run = plan([LIBRARY, 0], [SYSTEM, 0]);
    const { reading, reads } = await read(run, honest(run));
    await reads;
    expect(reading.nars.map(([name]) => name)).toEqual([LIBRARY, SYSTEM]);
    const start = offsetOf(PROGRAM) - offsetOf(LIBRARY);
    const bytes = Buffer.from(honest(run));
    // Its contents may be anything: their hash is not what this run is for.
    bytes.fill("x", start + 512, start + 512 + 1024);
    const other = await read(run, bytes);
    await other.reads;
    expect(other.reading.nars).toEqual(reading.nars);
    bytes[start] = 0;
    expect((await refusal(bytes, run)).code).toBe("ARCHIVE_MEMBER");
  });

  test("goes on inside a NAR of which a part is held, whose header is not read again", async () => {
    const run = plan([LIBRARY, 699], [PROGRAM, 0]);
    const { reading, reads } = await read(run, honest(run));
    await reads;
    expect(reading.nars).toEqual([
      [LIBRARY, 699, narOf(LIBRARY).slice(699)],
      [PROGRAM, 0, narOf(PROGRAM)],
    ]);
  });

  test("of an archive of others passes by members that the index does not know", async () => {
    const [library, , system] = CONTENTS.members.filter(isNarMember);
    if (!library || !system) throw new Error("no members");
    const run: Run = {
      ...{ archive: "ab".repeat(32), from: library.headerOffset, to: CONTENTS.size - 1024 },
      members: [library, system].map((member) => ({ member, wanted: true, have: 0 })),
    };
    const { reading, reads } = await read(run, ARCHIVE.bytes.subarray(run.from, run.to));
    await reads;
    expect(reading.nars.map(([name]) => name)).toEqual([LIBRARY, SYSTEM]);
  });

  test("reads the end of an archive only of its own, and only if it goes so far", async () => {
    const wrongEnd = flipped(honest(WHOLE).length - 1);
    expect(await refusal(wrongEnd)).toMatchObject({
      ...{ code: "ARCHIVE_MEMBER", message: "expected 1024 zero bytes after the last member" },
    });
    const foreign = await read({ ...WHOLE, archive: "cd".repeat(32) }, wrongEnd);
    await expect(foreign.reads).resolves.toBeUndefined();
    const shorter = await read({ ...WHOLE, to: WHOLE.to - 1024 }, wrongEnd);
    await expect(shorter.reads).resolves.toBeUndefined();
  });
});

describe("is refused", () => {
  test("a header that is another one, and nothing after it is given", async () => {
    const { code, message, nars } = await refusal(flipped(offsetOf(PROGRAM)));
    expect(code).toBe("ARCHIVE_MEMBER");
    expect(message).toContain(
      `expected the tar member file "${PROGRAM}" of 1024 bytes at offset ` +
        `${offsetOf(PROGRAM) + WHOLE.from}, found another header (file)`,
    );
    expect(nars).toEqual([LIBRARY]);
  });

  test("padding that is not zero", async () => {
    const { code, message } = await refusal(flipped(offsetOf(LIBRARY) + 512 + 700));
    expect(code).toBe("ARCHIVE_MEMBER");
    expect(message).toBe(`expected 324 zero bytes after ${LIBRARY}`);
    const last = await refusal(flipped(offsetOf(LIBRARY) + 512 + 1023));
    expect(last.code).toBe("ARCHIVE_MEMBER");
  });

  test("a narinfo that differs, with the line that does", async () => {
    const info = CONTENTS.members.find(({ name }) => name.endsWith(".narinfo"));
    if (info?.body.kind !== "bytes") throw new Error("no narinfo");
    const lines = info.body.bytes.toString().split("\n");
    const second = offsetOf(info.name) + 512 + (lines[0]?.length ?? 0) + 1;
    expect(await refusal(flipped(second))).toEqual({
      code: "NARINFO_MISMATCH",
      message:
        `${info.name} differs from the signed index in line 2: expected ` +
        JSON.stringify(lines[1]),
      nars: [],
    });
  });

  test("an end that comes early", async () => {
    for (const length of [0, 100, offsetOf(PROGRAM) + 600, honest(WHOLE).length - 1]) {
      const { code } = await refusal(honest(WHOLE).subarray(0, length));
      expect(code).toBe("ARCHIVE_TRUNCATED");
    }
  });
});

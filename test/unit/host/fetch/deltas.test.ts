import { describe, expect, test } from "vitest";
import { PullError, type ErrorCode } from "../../../../agent/core/errors.ts";
import { narFileName } from "../../../../agent/core/formats/narinfo.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { FetchWorld, type FetchWorldOptions } from "../../../support/fetch-world.ts";
import type { MirrorRequest } from "../../../support/archive-mirror.ts";
import { sampleArchive, withDeltas } from "../../../support/sample-archive.ts";

const NAR = 3_000;
/** `a` and `c` have deltas, `b` has none; each refers to the one before. */
const SAMPLE = withDeltas(
  sampleArchive([
    { name: "a", references: [], nar: Buffer.alloc(NAR, 1) },
    { name: "b", references: [0], nar: Buffer.alloc(NAR, 2) },
    { name: "c", references: [1], nar: Buffer.alloc(NAR, 3) },
  ]),
  [
    { at: 0, bytes: Buffer.from("delta of a") },
    { at: 2, bytes: Buffer.from("delta of c") },
  ],
);
const DELTAS = SAMPLE.deltaArchive.sha256;
const BOTH = 2 * "delta of a".length;
/** The request that brings both deltas. */
const DELTA_REQUEST = `one: deltas ${SAMPLE.offsets[0]}-${SAMPLE.deltaArchive.bytes.length}`;

const failing = (code: ErrorCode, which: (name: string) => boolean = () => true) => ({
  onMake: (name: string) => {
    if (which(name)) throw new PullError(code, `it is ${code}`);
  },
});

/** A mirror that fails requests for deltas. */
const withoutDeltas = (code: ErrorCode) => ({
  onPiece: ({ archive }: MirrorRequest) => {
    if (archive === DELTAS) throw new PullError(code, `it is ${code}`);
  },
});

test("deltas spare the NARs that they give, and come before what needs them", async () => {
  const world = new FetchWorld(SAMPLE, { mirrors: { one: { pieceBytes: 100_000 } } });
  expect(await world.fetch()).toEqual({
    ...{ paths: 3, newPaths: 3, bytesReceived: BOTH + NAR, deltasUsed: 2, deltasFailed: 0 },
  });
  expect(world.events).toEqual([
    "prepare staging",
    `one: archive ${world.indexRange}`,
    "write index",
    "remove unfinished NARs",
    DELTA_REQUEST,
    "make a from /store/ with delta of a",
    "made a",
    "make c from /store/ with delta of c",
    "made c",
    `one: archive ${world.range("b")}`,
    "stage b.nar",
    "hold c",
    "import a b c",
    "discard a.made b.nar c.made",
    "flush",
    "release pending-paths",
    "remove staging",
    "keep index",
  ]);
  expect(world.progress).toEqual([
    { received: 10, total: BOTH + NAR },
    { received: BOTH, total: BOTH + NAR },
    { received: BOTH + NAR, total: BOTH + NAR },
  ]);
  expect(world.lines()).toEqual(["debug: importing 3 of 3 paths"]);
});

test("a NAR is ordered whole and exact, and described as it was made", async () => {
  const orders: unknown[] = [];
  let narInfos: unknown[] = [];
  const world: FetchWorld = new FetchWorld(SAMPLE, {
    onMake: (_, { bytes, ...order }) =>
      orders.push({ ...order, bytes: Buffer.from(bytes).toString() }),
    onImport: () => {
      narInfos = [...world.staging.at(world.release.archive.sha256).narInfos.values()].map(
        ({ compression, fileSize, storePath }) => [storePath.slice(33), compression, fileSize],
      );
    },
  });
  await world.fetch();
  const [entry] = SAMPLE.index.paths;
  expect(orders[0]).toMatchObject({
    bytes: "delta of a",
    base: SAMPLE.bases[0]?.replace("/nix/store", "/store"),
    directory: `/staging/${SAMPLE.release.archive.sha256}`,
    narSize: entry?.narSize,
    delta: { replacements: new Map([[SAMPLE.bases[0]?.slice(11, 43), entry?.path.slice(0, 32)]]) },
  });
  const { file, sha256 } = orders[0] as { file: string; sha256: string };
  expect(file).toBe(narFileName(sha256, "none"));
  expect(narInfos).toEqual([
    ["a", "none", NAR + 100],
    ["b", "none", NAR],
    ["c", "none", NAR + 100],
  ]);
});

describe("no delta is used", () => {
  /** What a fetch in such a world reads; it must make nothing. */
  async function fetched(world: FetchWorld): Promise<string[]> {
    expect(await world.fetch()).toMatchObject({
      ...{ newPaths: 3, bytesReceived: 3 * NAR, deltasUsed: 0, deltasFailed: 0 },
    });
    expect(world.only("make")).toEqual([]);
    return world.only("one:").slice(1);
  }

  test("if this host cannot apply it", async () => {
    const world = new FetchWorld(SAMPLE);
    world.canMake = false;
    expect(await fetched(world)).toEqual([`one: archive ${world.range("a", "c")}`]);
    expect(world.lines("info")).toEqual([
      "info: zstd is not on PATH: 2 paths are downloaded whole",
    ]);
  });

  test("if the store has no base", async () => {
    const world = new FetchWorld(SAMPLE);
    for (const base of SAMPLE.bases) world.valid.delete(base);
    expect(await fetched(world)).toEqual([`one: archive ${world.range("a", "c")}`]);
    expect(world.lines("info", "warn")).toEqual([]);
  });

  test("if the NAR is larger than the limit", async () => {
    await fetched(new FetchWorld(SAMPLE, { limits: { deltaNarBytes: NAR + 99 } }));
    const world = new FetchWorld(SAMPLE, { limits: { deltaNarBytes: NAR + 100 } });
    expect((await world.fetch()).deltasUsed).toBe(2);
  });

  test("if the mirror serves no ranges, and nobody is warned", async () => {
    const world = new FetchWorld(SAMPLE, { mirrors: { one: { ranges: false, pieceBytes: 1e5 } } });
    expect(await fetched(world)).toEqual([`one: archive ${world.range("a", "c")}`]);
    expect(world.lines("warn")).toEqual([]);
    expect(world.progress.at(-1)).toEqual({ received: 3 * NAR, total: 3 * NAR });
  });
});

test("a path that is there needs no delta", async () => {
  const world = new FetchWorld(SAMPLE);
  world.canMake = false;
  for (const name of ["a", "c"]) world.valid.add(world.path(name));
  expect(await world.fetch()).toMatchObject({ newPaths: 1, deltasUsed: 0 });
  // Nobody had to ask whether it could be applied.
  expect(world.lines("info")).toEqual([]);
});

describe("a delta that does not give the NAR", () => {
  test.each<ErrorCode>([
    "ARCHIVE_CORRUPT",
    "TOOL_TIMEOUT",
    "TOOL_MISSING",
    "IO_FAILED",
    "INTERNAL",
  ])("(%s) is told, counted, and followed by the whole NAR", async (code) => {
    const world = new FetchWorld(SAMPLE, {
      ...failing(code, (name) => name === "c"),
      mirrors: { one: { pieceBytes: 100_000 } },
    });
    expect(await world.fetch()).toEqual({
      ...{ paths: 3, newPaths: 3, bytesReceived: BOTH + 2 * NAR },
      ...{ deltasUsed: 1, deltasFailed: 1 },
    });
    expect(world.only("one:", "made", "stage", "import", "discard")).toEqual([
      `one: archive ${world.indexRange}`,
      DELTA_REQUEST,
      "made a",
      `one: archive ${world.range("b", "c")}`,
      "stage b.nar",
      "stage c.nar",
      "import a b c",
      "discard a.made b.nar c.nar",
    ]);
    expect(world.lines("warn")).toEqual([`warn: c is downloaded whole: it is ${code}`]);
    expect(world.log.lines.find(({ level }) => level === "warn")?.fields).toEqual({ code });
    expect(world.progress.at(-1)).toEqual({
      ...{ received: BOTH + 2 * NAR, total: BOTH + 2 * NAR },
    });
    expect(world.progress[0]?.total).toBe(BOTH + NAR);
  });

  test("because the mirror lacks it costs nothing but the NAR", async () => {
    const world = new FetchWorld(SAMPLE, {
      mirrors: { one: { pieceBytes: 100_000, ...withoutDeltas("ARCHIVE_PARTIAL") } },
    });
    expect(await world.fetch()).toMatchObject({
      ...{ bytesReceived: 3 * NAR, deltasUsed: 0, deltasFailed: 2 },
    });
    expect(world.lines("warn")).toEqual([
      "warn: a is downloaded whole: it is ARCHIVE_PARTIAL",
      "warn: c is downloaded whole: it is ARCHIVE_PARTIAL",
    ]);
    expect(world.progress.map(({ total }) => total)).toEqual([3 * NAR, 3 * NAR, 3 * NAR]);
  });

  test("is not tried again at the next mirror, and what was made is not made again", async () => {
    const world = new FetchWorld(SAMPLE, {
      ...failing("ARCHIVE_CORRUPT", (name) => name === "c"),
      mirrors: {
        one: {
          pieceBytes: 100_000,
          onPiece: ({ archive, from }) => {
            if (archive !== DELTAS && from > 512) throw new PullError("MIRROR_STALLED", "gone");
          },
        },
        two: { pieceBytes: 100_000 },
      },
    });
    expect(await world.fetch()).toMatchObject({
      ...{ bytesReceived: BOTH + 2 * NAR, deltasUsed: 1, deltasFailed: 1 },
    });
    expect(world.only("make ", "two:")).toEqual([
      "make a from /store/ with delta of a",
      "make c from /store/ with delta of c",
      `two: archive ${world.range("b", "c")}`,
    ]);
    expect(world.progress.at(-1)).toEqual({
      ...{ received: BOTH + 2 * NAR, total: BOTH + 2 * NAR },
    });
  });

  test("that an earlier attempt staged whole is not read", async () => {
    const world = new FetchWorld(
      SAMPLE,
      failing("ARCHIVE_CORRUPT", (name) => name === "c"),
    );
    const staging = world.staging.open(SAMPLE.release.archive.sha256);
    await staging.prepare();
    world.staging.put(staging.directory, world.nar("c"), Buffer.alloc(NAR, 3));
    expect((await world.fetch()).bytesReceived).toBe(BOTH + NAR);
    expect(world.only("one:").at(-1)).toBe(`one: archive ${world.range("b")}`);
    expect(world.only("discard")).toEqual(["discard a.made b.nar c.nar"]);
    expect(world.progress.at(-1)).toEqual({ received: BOTH + NAR, total: BOTH + NAR });
  });
});

describe("what is no fault of a delta ends the fetch", () => {
  test.each<ErrorCode>(["INTERRUPTED", "DISK_FULL"])("%s", async (code) => {
    const world = new FetchWorld(SAMPLE, failing(code));
    expect(await rejectionOf(world.fetch())).toMatchObject({ code, message: `it is ${code}` });
    expect(world.only("import", "stage")).toEqual([]);
    expect(world.lines("warn")).toEqual([]);
    // No NAR came that could be resumed, in either case.
    expect(world.staging.archives.size).toBe(0);
  });

  test("the mirror's fault, which another mirror may not have", async () => {
    const world = new FetchWorld(SAMPLE, {
      mirrors: { one: withoutDeltas("MIRROR_STALLED"), two: {} },
    });
    expect(await world.fetch()).toMatchObject({ deltasUsed: 2, deltasFailed: 0 });
    expect(world.lines("warn")).toEqual([
      "warn: one: it is MIRROR_STALLED; the next mirror is tried",
    ]);
  });

  test("other bytes than the signed ones", async () => {
    const altered = Buffer.from(SAMPLE.deltaArchive.bytes);
    altered.write("D", SAMPLE.offsets[0] ?? 0);
    const archives = new Map([
      [SAMPLE.release.archive.sha256, SAMPLE.bytes],
      [DELTAS, altered],
    ]);
    const world = new FetchWorld(SAMPLE, { mirrors: { one: { archives } } });
    const failure = await rejectionOf(world.fetch());
    expect(failure.code).toBe("ARCHIVE_CORRUPT");
    expect(failure.message).toMatch(/^a delta in [0-9a-f]{64}\.tar: expected sha256 /);
    expect(failure.message).toContain(`a delta in ${DELTAS}.tar`);
    expect(world.only("make ")).toEqual([]);
  });
});

describe("NARs are made side by side", () => {
  const MANY = (size: number, count: number) =>
    withDeltas(
      sampleArchive(
        Array.from({ length: count }, (_, at) => ({
          name: `p${at}`,
          references: [],
          nar: Buffer.alloc(size, at + 1),
        })),
      ),
      Array.from({ length: count }, (_, at) => ({ at, bytes: Buffer.from(`delta ${at}`) })),
    );

  /** Lets makers end one after the other, once nothing else moves; gives who was at work. */
  async function atWork(
    sample: ReturnType<typeof MANY>,
    { idle, ...options }: FetchWorldOptions & { readonly idle?: () => unknown } = {},
  ) {
    const making: { name: string; end: () => void }[] = [];
    const seen: string[] = [];
    const world = new FetchWorld(sample, {
      ...options,
      onMake: (name) =>
        new Promise<void>((resolve) => {
          making.push({ name, end: resolve });
        }),
    });
    const state = { running: true };
    const fetching = world.fetch().finally(() => (state.running = false));
    while (state.running) {
      for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
      if (making.length === 0) {
        idle?.();
        continue;
      }
      seen.push(making.map(({ name }) => name).join(" "));
      making.shift()?.end();
    }
    const summary = await fetching;
    return { seen, world, summary };
  }

  test("as many at a time as the host can", async () => {
    const { seen, summary } = await atWork(MANY(1_000, 4));
    expect(seen).toEqual(["p0 p1", "p1 p2", "p2 p3", "p3"]);
    expect(summary.deltasUsed).toBe(4);
  });

  test("but with no more memory together than the largest may take", async () => {
    const limits = { deltaNarBytes: 2_199 };
    expect((await atWork(MANY(1_000, 3), { limits })).seen).toEqual(["p0", "p1", "p2"]);
    const more = { deltaNarBytes: 2_200 };
    expect((await atWork(MANY(1_000, 3), { limits: more })).seen).toEqual(["p0 p1", "p1 p2", "p2"]);
  });

  test("but with no more of the disk than staging's budget, for bases and results", async () => {
    const nars = [2_500_000, 500_000, 500_000].map((size, at) => ({
      ...{ name: `p${at}`, references: [], nar: Buffer.alloc(size, at + 1) },
    }));
    const sample = withDeltas(sampleArchive(nars), [
      { at: 1, bytes: Buffer.from("delta 1") },
      { at: 2, bytes: Buffer.from("delta 2") },
    ]);
    // While the store has not taken the first, there is room for one base and result.
    const imports: (() => void)[] = [];
    const { seen, world } = await atWork(sample, {
      limits: { stagingBytes: 4 * 1024 ** 2 },
      mirrors: { one: { pieceBytes: 500_000 } },
      onImport: () => new Promise<void>((resolve) => imports.push(resolve)),
      idle: () => imports.shift()?.(),
    });
    expect(seen).toEqual(["p1", "p2"]);
    expect(world.only("import", "discard")).toEqual([
      "import p0",
      "discard p0.nar",
      "import p1 p2",
      "discard p1.made p2.made",
    ]);
  });

  test.each<[string, boolean]>([
    ["is made", false],
    ["fails", true],
  ])("and what one took of the disk is free again once it %s", async (_, fails) => {
    const nars = [1_000_000, 2_500_000].map((size, at) => ({
      ...{ name: `p${at}`, references: [], nar: Buffer.alloc(size, at + 1) },
    }));
    const gate: { open: (() => void) | null } = { open: null };
    const world = new FetchWorld(
      withDeltas(sampleArchive(nars), [{ at: 0, bytes: Buffer.from("delta 0") }]),
      {
        ...(fails ? failing("ARCHIVE_CORRUPT") : {}),
        limits: { stagingBytes: 4 * 1024 ** 2 },
        mirrors: { one: { pieceBytes: 500_000 } },
        onImport: () => (gate.open ? null : new Promise<void>((resolve) => (gate.open = resolve))),
      },
    );
    const fetching = world.fetch();
    for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate);
    // Nobody waits for an import before there is room for the second.
    expect(world.only("stage", "discard")).toEqual([
      ...(fails ? ["stage p0.nar"] : []),
      "stage p1.nar",
    ]);
    gate.open?.();
    await fetching;
  });

  test("and all are waited for when one ends the fetch", async () => {
    const ended: string[] = [];
    const world = new FetchWorld(MANY(1_000, 3), {
      onMake: async (name) => {
        if (name === "p0") throw new PullError("DISK_FULL", "full");
        await new Promise((resolve) => setTimeout(resolve, 10));
        ended.push(name);
      },
    });
    expect((await rejectionOf(world.fetch())).code).toBe("DISK_FULL");
    // The third is not begun any more.
    expect(ended).toEqual(["p1"]);
    expect(world.events.indexOf("made p1")).toBeLessThan(world.events.indexOf("remove staging"));
  });
});

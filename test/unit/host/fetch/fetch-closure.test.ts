import { describe, expect, test } from "vitest";
import { PullError, type ErrorCode } from "../../../../agent/core/errors.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { FetchWorld, type FetchWorldOptions } from "../../../support/fetch-world.ts";
import { chainArchive, sampleArchive } from "../../../support/sample-archive.ts";

const CHAIN = chainArchive();
const [LIBRARY, PROGRAM, SYSTEM] = ["library-1.0", "program-2.0", "nixos-system-web1-1"] as const;
const SIZES = { [LIBRARY]: 700, [PROGRAM]: 1024, [SYSTEM]: 90 };
const ALL = 700 + 1024 + 90;

/** A world whose mirror `one` breaks off before this offset of the archive. */
function breaking(at: number, code: ErrorCode, options: FetchWorldOptions = {}): FetchWorld {
  return new FetchWorld(CHAIN, {
    ...options,
    mirrors: {
      one: {
        pieceBytes: 100,
        onPiece: ({ to }, offset) => {
          if (offset + 100 > at && to > at) throw new PullError(code, "the mirror broke off");
        },
      },
      ...options.mirrors,
    },
  });
}

/** Offset in the archive at which the contents of a path's NAR begin. */
const offsetOf = (name: string): number => new FetchWorld(CHAIN).narOffset(name);

describe("a store that has nothing", () => {
  test("gets everything, in an order that a crash cannot harm", async () => {
    const world = new FetchWorld(CHAIN);
    expect(await world.fetch()).toEqual({
      ...{ paths: 3, newPaths: 3, bytesReceived: ALL, deltasUsed: 0, deltasFailed: 0 },
    });
    expect(world.events).toEqual([
      "prepare staging",
      `one: archive ${world.indexRange}`,
      "write index",
      "remove unfinished NARs",
      `one: archive ${world.wholeRange}`,
      `stage ${LIBRARY}.nar`,
      `stage ${PROGRAM}.nar`,
      `stage ${SYSTEM}.nar`,
      // Before they are valid: a garbage collection may come at any time.
      `hold ${SYSTEM}`,
      `import ${LIBRARY} ${PROGRAM} ${SYSTEM}`,
      `discard ${LIBRARY}.nar ${PROGRAM}.nar ${SYSTEM}.nar`,
      // Nix records paths as valid before they are on the disk.
      "flush",
      "release pending-paths",
      "remove staging",
      "keep index",
    ]);
    expect(world.lines()).toEqual(["debug: importing 3 of 3 paths"]);
    expect(world.served).toEqual(["one: ok", "one: ok"]);
    expect([...world.indexes.keys()]).toEqual([world.release.archive.index.sha256]);
    expect(JSON.parse(String(world.indexes.values().next().value))).toEqual(CHAIN.index);
  });

  test("hears how far the download is", async () => {
    const world = new FetchWorld(CHAIN, { mirrors: { one: { pieceBytes: 100_000 } } });
    await world.fetch();
    expect(world.progress).toEqual([
      { received: 700, total: ALL },
      { received: 1724, total: ALL },
      { received: 1814, total: ALL },
    ]);
  });

  test("gets it from a mirror without ranges by one read, too", async () => {
    const world = new FetchWorld(CHAIN, { mirrors: { one: { ranges: false } } });
    expect((await world.fetch()).bytesReceived).toBe(ALL);
    expect(world.only("one:")).toEqual([
      `one: archive ${world.indexRange}`,
      `one: archive ${world.wholeRange}`,
    ]);
  });
});

describe("a store that has some of it", () => {
  test("gets the rest, and references to what is valid do not hold it up", async () => {
    const world = new FetchWorld(CHAIN, { valid: [new FetchWorld(CHAIN).path(PROGRAM)] });
    world.valid.add(world.path(LIBRARY));
    expect(await world.fetch()).toMatchObject({ paths: 3, newPaths: 1, bytesReceived: 90 });
    expect(world.only("one:", "hold", "import", "stage")).toEqual([
      `one: archive ${world.indexRange}`,
      `one: archive ${world.range(SYSTEM)}`,
      `stage ${SYSTEM}.nar`,
      `hold ${SYSTEM}`,
      `import ${SYSTEM}`,
    ]);
    expect(world.lines()).toEqual(["debug: importing 1 of 1 paths"]);
  });

  test("and lacks nothing is left alone", async () => {
    const world = new FetchWorld(CHAIN);
    for (const name of [LIBRARY, PROGRAM, SYSTEM]) world.valid.add(world.path(name));
    expect(await world.fetch()).toEqual({
      ...{ paths: 3, newPaths: 0, bytesReceived: 0, deltasUsed: 0, deltasFailed: 0 },
    });
    expect(world.events).toEqual([
      "prepare staging",
      `one: archive ${world.indexRange}`,
      "write index",
      "remove unfinished NARs",
      "release pending-paths",
      "remove staging",
      "keep index",
    ]);
    expect(world.progress).toEqual([]);
  });
});

describe("a download that broke off", () => {
  const cut = offsetOf(PROGRAM) + 250;

  test("goes on where it stopped", async () => {
    const world = breaking(cut, "MIRROR_STALLED");
    const failure = await rejectionOf(world.fetch());
    expect(failure).toMatchObject({ code: "MIRROR_STALLED", message: "the mirror broke off" });
    const have = Number(/keep (\d+) bytes/.exec(world.only("keep").join())?.[1]);
    expect(have).toBeGreaterThan(0);
    expect(world.only("keep", "remove", "release", "flush")).toEqual([
      "remove unfinished NARs",
      `keep ${have} bytes of ${PROGRAM}.nar`,
    ]);

    const again = new FetchWorld(CHAIN, { mirrors: { one: { pieceBytes: 100_000 } } });
    for (const [sha256, files] of world.staging.archives) {
      again.staging.archives.set(sha256, files);
    }
    expect((await again.fetch()).bytesReceived).toBe(1024 - have + 90);
    const [from, to] = [again.narOffset(PROGRAM) + have, again.range(SYSTEM).split("-")[1]];
    expect(again.only("one:", "write", "stage", "import")).toEqual([
      // The index is there, and so is the first NAR; the second goes on in its middle.
      `one: archive ${from}-${to}`,
      `stage ${PROGRAM}.nar`,
      `stage ${SYSTEM}.nar`,
      `import ${LIBRARY} ${PROGRAM} ${SYSTEM}`,
    ]);
    expect(again.progress).toEqual([
      { received: 1024 - have, total: 1024 - have + 90 },
      { received: 1024 - have + 90, total: 1024 - have + 90 },
    ]);
  });

  test("goes on at the next mirror", async () => {
    const world = breaking(cut, "MIRROR_STALLED", { mirrors: { two: {} } });
    expect(await world.fetch()).toMatchObject({ newPaths: 3, bytesReceived: ALL });
    const have = Number(/keep (\d+) bytes/.exec(world.only("keep").join())?.[1]);
    const [from, to] = [world.narOffset(PROGRAM) + have, world.range(SYSTEM).split("-")[1]];
    expect(world.only("one:", "two:", "keep", "stage")).toEqual([
      `one: archive ${world.indexRange}`,
      `one: archive ${world.wholeRange}`,
      `stage ${LIBRARY}.nar`,
      `keep ${have} bytes of ${PROGRAM}.nar`,
      `two: archive ${from}-${to}`,
      `stage ${PROGRAM}.nar`,
      `stage ${SYSTEM}.nar`,
      "keep index",
    ]);
    expect(world.lines("warn")).toEqual([
      "warn: one: the mirror broke off; the next mirror is tried",
    ]);
    expect(world.log.lines.find(({ level }) => level === "warn")?.fields).toEqual({
      code: "MIRROR_STALLED",
    });
    expect(world.served).toEqual(["one: ok", "one: MIRROR_STALLED", "two: ok"]);
    // What the first mirror brought counts.
    expect(new Set(world.progress.map(({ total }) => total))).toEqual(new Set([ALL]));
    expect(world.progress.at(-1)?.received).toBe(ALL);
  });

  test("starts the NAR anew at a next mirror without ranges, and says so in the total", async () => {
    // Two NARs are held: one to its middle, which one read from the start reads again.
    const world = breaking(cut, "MIRROR_STALLED", { mirrors: { two: { ranges: false } } });
    const { bytesReceived } = await world.fetch();
    expect(world.progress.at(-1)).toEqual({ received: bytesReceived, total: bytesReceived });
    expect(world.only("import")).toEqual([`import ${LIBRARY} ${PROGRAM} ${SYSTEM}`]);
  });

  test("is nobody's to resume if nothing of it came", async () => {
    const world = breaking(offsetOf(LIBRARY) - 512, "MIRROR_UNREACHABLE");
    expect((await rejectionOf(world.fetch())).code).toBe("MIRROR_UNREACHABLE");
    expect(world.events.slice(-1)).toEqual(["remove staging"]);
    expect(world.events).not.toContain("release pending-paths");
  });

  test.each<[ErrorCode, boolean]>([
    ["MIRROR_UNREACHABLE", true],
    ["MIRROR_ABSENT", true],
    ["MIRROR_STATUS", true],
    ["MIRROR_STALLED", true],
    ["MIRROR_SLOW", true],
    ["MIRROR_TLS", true],
    ["INTERRUPTED", true],
    ["TOOL_MISSING", true],
    ["TOOL_TIMEOUT", true],
    ["MIRROR_NOT_FOUND", false],
    ["MIRROR_OVERSIZE", false],
    ["MIRROR_REDIRECT", false],
    ["ARCHIVE_TRUNCATED", false],
    ["IO_FAILED", false],
    ["INTERNAL", false],
  ])("with %s keeps what came: %s", async (code, kept) => {
    const world = breaking(cut, code);
    expect((await rejectionOf(world.fetch())).code).toBe(code);
    expect(world.staging.archives.size).toBe(kept ? 1 : 0);
    expect(world.events.includes("release pending-paths")).toBe(!kept);
  });

  test("by all mirrors says what each of them did, with the last one's code", async () => {
    const broken = (code: ErrorCode) => ({
      onPiece: () => {
        throw new PullError(code, `is ${code}`);
      },
    });
    const world = new FetchWorld(CHAIN, {
      mirrors: { one: broken("MIRROR_TLS"), two: broken("MIRROR_SLOW") },
    });
    const failure = await rejectionOf(world.fetch());
    expect(failure.code).toBe("MIRROR_SLOW");
    expect(failure.message).toBe("one: is MIRROR_TLS; two: is MIRROR_SLOW");
  });
});

describe("bytes that are not the signed ones", () => {
  const altered = (offset: number): Buffer => {
    const bytes = Buffer.from(CHAIN.bytes);
    bytes[offset] = (bytes[offset] ?? 0) ^ 1;
    return bytes;
  };
  const narinfo = CHAIN.bytes.indexOf("NarSize: ") + "NarSize: ".length;

  test.each<[ErrorCode, Buffer]>([
    ["ARCHIVE_CORRUPT", altered(offsetOf(PROGRAM))],
    ["ARCHIVE_MEMBER", altered(offsetOf(PROGRAM) - 512)],
    ["NARINFO_MISMATCH", altered(narinfo)],
  ])("are refused as %s, and what they left is removed", async (code, bytes) => {
    const { sha256 } = CHAIN.release.archive;
    const world = new FetchWorld(CHAIN, {
      mirrors: { one: { archives: new Map([[sha256, bytes]]) } },
    });
    expect((await rejectionOf(world.fetch())).code).toBe(code);
    expect(world.staging.archives.size).toBe(0);
    expect(world.events.slice(-2)).toEqual(["remove staging", "release pending-paths"]);
    expect(world.only("import", "keep index", "flush")).toEqual([]);
    expect(world.valid.size).toBe(0);

    const next = new FetchWorld(CHAIN, {
      mirrors: { one: { archives: new Map([[sha256, bytes]]) }, two: {} },
    });
    await next.fetch();
    expect(next.served).toEqual(["one: ok", `one: ${code}`, "two: ok"]);
    expect(next.valid.size).toBe(3);
  });
});

describe("staging's budget", () => {
  const NAR = 1_500_000;
  const LARGE = sampleArchive(
    Array.from({ length: 8 }, (_, at) => ({
      name: `path-${at}`,
      references: at === 0 ? [] : [at - 1],
      nar: Buffer.alloc(NAR, at + 1),
    })),
  );
  const limits = { stagingBytes: 4 * 1024 ** 2 };

  test.each([true, false])("holds the download back (ranges: %s)", async (ranges) => {
    const gate: { open: () => void } = { open: () => undefined };
    let imports = 0;
    const world = new FetchWorld(LARGE, {
      limits,
      mirrors: { one: { ranges, pieceBytes: 500_000 } },
      // The first import takes until somebody lets it go on.
      onImport: () =>
        imports++ > 0 ? null : new Promise<void>((resolve) => (gate.open = resolve)),
    });
    const fetching = world.fetch();
    const staged = (): string[] => world.only("stage");
    while (world.only("import").length === 0) await new Promise(setImmediate);
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    // Two are in the store's hands or wait; a third would go over the budget.
    expect(staged()).toEqual(["stage path-0.nar", "stage path-1.nar"]);
    gate.open();
    await fetching;
    expect(staged()).toHaveLength(8);
    expect(world.staging.mostBytes).toBe(2 * NAR);
    // The index, what lies before the first NAR, and each NAR by itself.
    expect(world.only("one:")).toHaveLength(ranges ? 10 : 2);
    const imported = world.only("import").flatMap((event) => event.split(" ").slice(1));
    expect(imported).toEqual(LARGE.index.paths.map((_, at) => `path-${at}`));
    // Each batch is held by what nothing else in it refers to.
    for (const event of world.only("import")) {
      expect(world.events).toContain(`hold ${event.split(" ").at(-1)}`);
    }
  });

  test("is free again for what a mirror did not bring", async () => {
    const gate: { open: (() => void) | null } = { open: null };
    const broken = new FetchWorld(LARGE).narOffset("path-0") + 1_000_000;
    const world = new FetchWorld(LARGE, {
      limits,
      mirrors: {
        one: {
          pieceBytes: 500_000,
          onPiece: ({ to }, offset) => {
            if (to > broken && offset > broken - 500_000) throw new PullError("MIRROR_TLS", "gone");
          },
        },
        two: { pieceBytes: 500_000 },
      },
      onImport: () => (gate.open ? null : new Promise<void>((resolve) => (gate.open = resolve))),
    });
    const fetching = world.fetch();
    while (!gate.open) await new Promise(setImmediate);
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    expect(world.only("stage")).toEqual(["stage path-0.nar", "stage path-1.nar"]);
    gate.open();
    await fetching;
  });

  test("holds back a mirror too that turns out to serve no ranges, with one more read", async () => {
    const world: FetchWorld = new FetchWorld(LARGE, {
      limits,
      mirrors: {
        one: {
          pieceBytes: 500_000,
          onPiece: ({ from }) => {
            const [mirror] = world.mirrors;
            if (mirror && from >= world.narOffset("path-1") - 512) mirror.ranges = false;
          },
        },
      },
    });
    expect((await world.fetch()).bytesReceived).toBe(8 * NAR);
    expect(world.only("one:").slice(2)).toEqual([
      `one: archive ${world.range("path-0")}`,
      `one: archive ${world.range("path-1")}`,
      `one: archive ${world.range("path-2", "path-7")}`,
    ]);
    expect(world.staging.mostBytes).toBeLessThanOrEqual(limits.stagingBytes);
  });

  test("is gone beyond by one NAR that is larger, alone", async () => {
    const huge = sampleArchive([
      { name: "small", references: [], nar: Buffer.alloc(10, 1) },
      { name: "huge", references: [0], nar: Buffer.alloc(5 * 1024 ** 2, 2) },
    ]);
    const world = new FetchWorld(huge, { limits, mirrors: { one: { pieceBytes: 1e6 } } });
    await world.fetch();
    expect(world.only("stage", "import", "discard")).toEqual([
      "stage small.nar",
      "import small",
      "discard small.nar",
      "stage huge.nar",
      "import huge",
      "discard huge.nar",
    ]);
  });

  test("counts what an earlier attempt staged", async () => {
    const world = new FetchWorld(LARGE, { limits, mirrors: { one: { pieceBytes: 500_000 } } });
    const staging = world.staging.open(LARGE.release.archive.sha256);
    await staging.prepare();
    for (const at of [0, 1, 2]) {
      world.staging.put(staging.directory, world.nar(`path-${at}`), Buffer.alloc(NAR, at + 1));
    }
    expect((await world.fetch()).bytesReceived).toBe(5 * NAR);
    expect(world.only("import")[0]).toMatch(/^import path-0/);
    expect(world.events.indexOf("import path-0 path-1")).toBeLessThan(
      world.events.indexOf("stage path-3.nar"),
    );
  });

  test("ends the download when an import fails, with the import's error", async () => {
    const broken = new PullError("IMPORT_FAILED", "nix refused it");
    const world = new FetchWorld(LARGE, {
      limits,
      mirrors: { one: { pieceBytes: 10_000 } },
      onImport: async () => {
        for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
        throw broken;
      },
    });
    expect(await rejectionOf(world.fetch())).toBe(broken);
    expect(world.only("import")).toHaveLength(1);
    // It was stopped in the middle of a NAR, not at its end.
    expect(world.only("stage")).toEqual(["stage path-0.nar"]);
    expect(world.only("keep")).toHaveLength(1);
    expect(world.events.slice(-3)).toEqual(["remove staging", "flush", "release pending-paths"]);
    expect(world.roots.size).toBe(0);
    expect(world.lines("warn")).toEqual([]);
  });

  test("ends an import that is told to stop, and keeps what can be resumed", async () => {
    const stop = new AbortController();
    const world = new FetchWorld(LARGE, {
      limits,
      mirrors: { one: { pieceBytes: 500_000 } },
      onImport: (_, signal) => {
        stop.abort();
        expect(signal?.aborted).toBe(true);
      },
    });
    expect((await rejectionOf(world.fetch(stop.signal))).code).toBe("INTERRUPTED");
    expect(world.staging.archives.size).toBe(1);
    // What was imported, if anything, stays held for the next attempt.
    expect([...world.roots.keys()]).toEqual(["pending-paths"]);
    expect(world.only("release", "flush", "remove staging")).toEqual([]);
  });
});

describe("a fetch that is told to stop", () => {
  test("keeps what came, and reads nothing more", async () => {
    const stop = new AbortController();
    const world = new FetchWorld(CHAIN, {
      mirrors: {
        one: {
          pieceBytes: 100,
          onPiece: (_, offset) => {
            if (offset > offsetOf(PROGRAM) + 200) stop.abort();
          },
        },
        two: {},
      },
    });
    expect((await rejectionOf(world.fetch(stop.signal))).code).toBe("INTERRUPTED");
    expect(world.only("two:", "import", "release", "remove staging")).toEqual([]);
    const [files] = world.staging.archives.values();
    expect(files?.index).not.toBeNull();
    expect([...(files?.files.keys() ?? [])]).toEqual([world.nar(LIBRARY)]);
    expect([...(files?.parts.keys() ?? [])]).toEqual([world.nar(PROGRAM)]);
  });

  test("before it began leaves nothing", async () => {
    const world = new FetchWorld(CHAIN);
    expect((await rejectionOf(world.fetch(AbortSignal.abort()))).code).toBe("INTERRUPTED");
    expect(world.only("write", "stage", "import", "remove staging")).toEqual(["remove staging"]);
  });
});

describe("an attempt that failed", () => {
  test("brought something if more of the closure is staged than before", async () => {
    const world = breaking(offsetOf(PROGRAM) + 10, "MIRROR_UNREACHABLE");
    await rejectionOf(world.fetch());
    expect(world.advanced).toBe(1);
    // It breaks at the same place, and nothing more came.
    await rejectionOf(world.fetch());
    expect(world.advanced).toBe(1);
  });

  test("brought nothing if the same came before, and was removed since", async () => {
    const world = breaking(offsetOf(PROGRAM) + 10, "MIRROR_UNREACHABLE");
    await rejectionOf(world.fetch());
    expect(world.advanced).toBe(1);
    // As after an archive that was refused.
    world.staging.archives.clear();
    await rejectionOf(world.fetch());
    expect(world.advanced).toBe(1);
  });

  test("brought nothing if what came does not stay", async () => {
    const world = breaking(offsetOf(PROGRAM) + 10, "ARCHIVE_TRUNCATED");
    await rejectionOf(world.fetch());
    expect(world.advanced).toBe(0);
  });

  test("brought nothing if no mirror has the index", async () => {
    const world = new FetchWorld(CHAIN, { mirrors: { one: { archives: new Map() } } });
    await rejectionOf(world.fetch());
    expect(world.advanced).toBe(0);
  });
});

describe("what an earlier attempt imported", () => {
  test("is looked at before it counts, and what is damaged comes again", async () => {
    const world = new FetchWorld(CHAIN);
    for (const name of [LIBRARY, PROGRAM]) world.valid.add(world.path(name));
    world.roots.set("pending-paths", [world.path(PROGRAM)]);
    world.damaged = [world.path(PROGRAM), world.path(SYSTEM)];
    expect(await world.fetch()).toMatchObject({ newPaths: 2 });
    expect(world.events.slice(0, 3)).toEqual([
      "prepare staging",
      `look at ${PROGRAM}`,
      `one: archive ${world.indexRange}`,
    ]);
    expect(world.lines("warn")).toEqual([
      "warn: 1 paths were damaged while they were imported and are removed",
    ]);
    expect(world.log.lines.find(({ level }) => level === "warn")?.fields).toEqual({
      paths: [world.path(PROGRAM)],
    });
  });

  test("and is whole is used as it is", async () => {
    const world = new FetchWorld(CHAIN);
    world.valid.add(world.path(LIBRARY));
    world.roots.set("pending-paths", [world.path(LIBRARY)]);
    expect(await world.fetch()).toMatchObject({ newPaths: 2, bytesReceived: ALL - SIZES[LIBRARY] });
    expect(world.lines("warn")).toEqual([]);
  });
});

describe("the end of a fetch", () => {
  test("may not come before what was imported is on the disk", async () => {
    const world = new FetchWorld(CHAIN);
    world.broken.set("flush", new PullError("TOOL_TIMEOUT", "sync did not finish"));
    expect((await rejectionOf(world.fetch())).code).toBe("TOOL_TIMEOUT");
    expect([...world.roots.keys()]).toEqual(["pending-paths"]);
    expect(world.only("keep index", "release")).toEqual([]);
  });

  test("does not fail if the index cannot be kept", async () => {
    const world = new FetchWorld(CHAIN);
    world.broken.set("keep", new PullError("IO_FAILED", "the disk is full"));
    expect((await world.fetch()).newPaths).toBe(3);
    expect(world.lines("debug").at(-1)).toBe("debug: the index is not kept: the disk is full");
  });

  test("by a failure is told even if nothing can be cleaned up", async () => {
    const world = breaking(offsetOf(PROGRAM) + 10, "ARCHIVE_TRUNCATED");
    world.roots.set("pending-paths", []);
    world.staging.remove = () => Promise.reject(new Error("read-only file system"));
    const tools = world.tools();
    world.tools = () => ({
      ...tools,
      roots: { ...tools.roots, release: () => Promise.reject(new Error("read-only")) },
    });
    expect((await rejectionOf(world.fetch())).code).toBe("ARCHIVE_TRUNCATED");
  });
});

describe("paths that the store has and that are damaged", () => {
  function allValid(): FetchWorld {
    const world = new FetchWorld(CHAIN);
    for (const { path } of CHAIN.index.paths) world.valid.add(`/nix/store/${path}`);
    return world;
  }

  test("are downloaded and mended if they are not even there", async () => {
    const world = allValid();
    world.valid.delete(world.path(SYSTEM));
    world.absent.add(world.path(LIBRARY));
    expect((await world.fetch()).newPaths).toBe(2);
    expect(world.only("import", "mend", "verify")).toEqual([`import ${SYSTEM}`, `mend ${LIBRARY}`]);
    // What this holds may be removed after a power cut, with all that refers to it.
    expect(world.only("hold")).toEqual([`hold ${SYSTEM}`]);
    expect(world.absent.size).toBe(0);
  });

  test("are looked for by their contents only if that is asked for", async () => {
    const world = allValid();
    world.torn.add(world.path(PROGRAM));
    expect((await world.fetch()).newPaths).toBe(0);
    world.verify = true;
    expect((await world.fetch()).newPaths).toBe(1);
    expect(world.only("import", "mend", "verify")).toEqual(["verify 3 paths", `mend ${PROGRAM}`]);
  });

  test("are left if the mirror has other contents under their name", async () => {
    const world = allValid();
    world.absent.add(world.path(LIBRARY));
    world.foreign.add(world.path(LIBRARY));
    expect((await world.fetch()).newPaths).toBe(0);
    expect(world.only("import", "mend")).toEqual([]);
    expect(world.lines("warn").join()).toContain(
      `${LIBRARY} is damaged; expected contents sha256:other`,
    );
  });
});

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { stagingBudget } from "../../../../agent/host/fetch/disk-space.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { FetchWorld } from "../../../support/fetch-world.ts";
import { chainArchive, sampleArchive, withDeltas } from "../../../support/sample-archive.ts";

const MIB = 1024 ** 2;
const CHAIN = chainArchive();
/** Sizes of its NARs, and of what they unpack to, in all. */
const [NARS, UNPACKED] = [700 + 1024 + 90, 800 + 1124 + 190];
const RESERVE = 1_000;

test.each([
  // A sixteenth of the closure, unless that is very little.
  [{ closureSize: 160 * MIB }, 0, 10 * MIB],
  [{ closureSize: 160 * MIB + 1 }, 0, 10 * MIB + 1],
  [{ closureSize: 16 * MIB }, 0, 4 * MIB],
  // What the settings say, unless that is very little.
  [{ closureSize: 160 * MIB }, 5 * MIB, 5 * MIB],
  [{ closureSize: 160 * MIB }, 1, 4 * MIB],
])("of %s with limit %s, staging may take %s", (release, stagingBytes, bytes) => {
  expect(stagingBudget(release, { limits: { stagingBytes } })).toBe(bytes);
});

describe("before the download", () => {
  /** The refusal of a host with so much free on its disks, or null. */
  async function refusal(
    free: { staging: number; store: number },
    sample = CHAIN,
    prepare: (world: FetchWorld) => unknown = () => undefined,
  ) {
    const world = new FetchWorld(sample);
    world.free.set("/staging", free.staging).set("/store", free.store);
    await prepare(world);
    const failure = await world.fetch().then(
      () => null,
      (error: unknown) => error,
    );
    if (failure === null) return null;
    // Nothing was downloaded but the index, and nothing is left.
    expect(world.only("one:")).toHaveLength(1);
    expect(world.events.slice(-2)).toEqual(["remove staging", "release pending-paths"]);
    return failure as PullError;
  }

  test("there must be room in the store for what NARs unpack to", async () => {
    expect(await refusal({ staging: 1e9, store: UNPACKED + RESERVE })).toBeNull();
    expect(await refusal({ staging: 1e9, store: UNPACKED + RESERVE - 1 })).toMatchObject({
      code: "DISK_FULL",
      message:
        `the store (/store): expected ${UNPACKED} bytes free and ${RESERVE} left over, ` +
        `found ${UNPACKED + RESERVE - 1}`,
    });
  });

  test("there must be room in staging for all NARs, if they are few", async () => {
    expect(await refusal({ staging: NARS + RESERVE, store: 1e9 })).toBeNull();
    expect(await refusal({ staging: NARS + RESERVE - 1, store: 1e9 })).toMatchObject({
      code: "DISK_FULL",
      message:
        `staging (/staging): expected ${NARS} bytes free and ${RESERVE} left over, ` +
        `found ${NARS + RESERVE - 1}`,
    });
  });

  test("there must be room for both on a disk that they share", async () => {
    const bytes = NARS + UNPACKED;
    const share = (world: FetchWorld): void => {
      const { tools } = world;
      world.tools = () => ({
        ...tools.call(world),
        disk: { freeSpace: async () => ({ free: bytes + RESERVE - 1, fileSystem: "root" }) },
      });
    };
    expect(await refusal({ staging: 0, store: 0 }, CHAIN, share)).toMatchObject({
      code: "DISK_FULL",
      message:
        `staging (/staging) and the store (/store): expected ${bytes} bytes free and ` +
        `${RESERVE} left over, found ${bytes + RESERVE - 1}`,
    });
  });

  test("what is staged already takes no more room", async () => {
    const stage = async (world: FetchWorld): Promise<void> => {
      const staging = world.staging.open(CHAIN.release.archive.sha256);
      await staging.prepare();
      const [name, bytes] = [...CHAIN.nars][0] ?? ["", Buffer.alloc(0)];
      world.staging.put(staging.directory, name, bytes);
      const { parts } = world.staging.at(staging.directory);
      const [second, contents] = [...CHAIN.nars][1] ?? ["", Buffer.alloc(0)];
      parts.set(second, contents.subarray(0, 24));
    };
    const left = NARS - 700 - 24;
    expect(await refusal({ staging: left + RESERVE, store: 1e9 }, CHAIN, stage)).toBeNull();
    const failure = await refusal({ staging: left + RESERVE - 1, store: 1e9 }, CHAIN, stage);
    expect(failure?.message).toContain(`expected ${left} bytes free`);
  });

  test("staging takes no more than its budget, or one NAR that is larger", async () => {
    const nars = (...sizes: number[]) =>
      sampleArchive(
        sizes.map((size, at) => ({ name: `n${at}`, references: [], nar: Buffer.alloc(size, at) })),
      );
    const many = await refusal({ staging: 0, store: 1e9 }, nars(3 * MIB, 3 * MIB));
    expect(many?.message).toContain(`staging (/staging): expected ${4 * MIB} bytes free`);
    const huge = await refusal({ staging: 0, store: 1e9 }, nars(3 * MIB, 5 * MIB));
    expect(huge?.message).toContain(`staging (/staging): expected ${5 * MIB} bytes free`);
  });

  test("a delta takes room for its base and its result, beside the NAR that may come instead", async () => {
    const deltas = (size: number) =>
      withDeltas(sampleArchive([{ name: "n", references: [], nar: Buffer.alloc(size, 1) }]), [
        { at: 0, bytes: Buffer.from("delta") },
      ]);
    const small = await refusal({ staging: 0, store: 1e9 }, deltas(1_000));
    expect(small?.message).toContain(`expected ${1_000 + 2 * 1_100} bytes free`);
    const large = await refusal({ staging: 0, store: 1e9 }, deltas(3 * MIB));
    expect(large?.message).toContain(`expected ${2 * (3 * MIB + 100)} bytes free`);
  });

  test.each([
    // Three NARs and three paths; the store also needs what they unpack to.
    ["staging", "/staging", 6],
    ["the store", "/store", 3],
    ["the state directory", "/state", 32],
  ])("there must be inodes for %s", async (what, fileSystem, files) => {
    const withInodes = (free: number) => (world: FetchWorld) =>
      world.inodes.set(fileSystem, { free, total: 1_000 });
    const enough = { staging: 1e12, store: 1e12 };
    expect(await refusal(enough, CHAIN, withInodes(files))).toBeNull();
    const failure = await refusal(enough, CHAIN, withInodes(files - 1));
    expect(failure?.code).toBe("DISK_FULL");
    expect(failure?.message).toContain(
      `: expected ${files} free inodes, one for each file and directory, ` +
        `found ${files - 1} of 1000`,
    );
    expect(failure?.message.startsWith(what)).toBe(true);
  });

  test("NARs need as many inodes as the store's files of that size have, but no more than systems", async () => {
    const sample = sampleArchive([{ name: "n", references: [], nar: Buffer.alloc(3 * MIB, 1) }]);
    const files = async (used: number) => {
      const inodes = { free: 0, total: used };
      const failure = await refusal({ staging: 1e12, store: 1e12 }, sample, (world) =>
        world.inodes.set("/store", inodes),
      );
      return failure?.message.match(/expected (\d+) free inodes/)?.[1];
    };
    // 1e12 bytes are used. One file for each million of them:
    expect(await files(1e6)).toBe(String(1 + 3));
    expect(await files(1e12)).toBe(String(1 + Math.floor((3 * MIB + 100) / (16 * 1024))));
  });

  test("a full disk is no obstacle if nothing is missing", async () => {
    const all = (world: FetchWorld): void => {
      for (const { path } of CHAIN.index.paths) world.valid.add(`/nix/store/${path}`);
    };
    expect(await refusal({ staging: 0, store: 0 }, CHAIN, all)).toBeNull();
  });
});

describe("while Nix imports", () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  /** Fetches with an import that goes on until it is stopped or `turns` looks have passed. */
  async function fetchWhile(free: number, turns: number, stop = new AbortController()) {
    const world = new FetchWorld(CHAIN, {
      onImport: async (_, signal) => {
        world.free.set("/store", free);
        for (let turn = 0; turn < turns && !signal?.aborted; turn++) {
          await vi.advanceTimersByTimeAsync(100);
        }
        if (turns === 0) stop.abort();
      },
    });
    const failure = await world.fetch(stop.signal).then(
      () => null,
      (error: unknown) => error as PullError,
    );
    return { world, failure };
  }

  test("it is stopped when half the reserve is left", async () => {
    const { failure, world } = await fetchWhile(RESERVE / 2 - 1, 2);
    expect(failure?.code).toBe("DISK_FULL");
    expect(failure?.message).toBe(
      "/store: the import was stopped when less than 500 bytes were left; either something else " +
        "fills this disk, or the closure unpacks to more than it says",
    );
    expect(failure?.cause).toMatchObject({ code: "INTERRUPTED" });
    expect(world.staging.archives.size).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("it goes on as long as there is that much", async () => {
    const { failure } = await fetchWhile(RESERVE / 2, 3);
    expect(failure).toBeNull();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("a stop from outside is no full disk", async () => {
    const { failure } = await fetchWhile(0, 0);
    expect(failure?.code).toBe("INTERRUPTED");
  });

  test("a disk that cannot be looked at stops nothing", async () => {
    const world = new FetchWorld(CHAIN, {
      onImport: async () => {
        world.free.clear();
        await vi.advanceTimersByTimeAsync(300);
      },
    });
    expect((await world.fetch()).newPaths).toBe(3);
  });

  test("an import's own failure is told as it is", async () => {
    const broken = new PullError("IMPORT_FAILED", "no");
    const world = new FetchWorld(CHAIN, {
      onImport: () => {
        throw broken;
      },
    });
    expect(await rejectionOf(world.fetch())).toBe(broken);
  });
});

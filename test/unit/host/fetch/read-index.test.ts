import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import type { IndexPatch, Release } from "../../../../agent/core/formats/manifest.ts";
import { readIndex } from "../../../../agent/host/fetch/read-index.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { FetchWorld, type FetchWorldOptions } from "../../../support/fetch-world.ts";
import { chainArchive } from "../../../support/sample-archive.ts";

const CHAIN = chainArchive();
const JSON_TEXT = Buffer.from(JSON.stringify(CHAIN.index));
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** An archive that has these patches one after the other, and how a manifest names them. */
function patchArchive(...patches: { base: string; text: string }[]) {
  const bytes = Buffer.from(`HEAD${patches.map(({ text }) => text).join("")}`);
  let offset = 4;
  const named = patches.map(({ base, text }): IndexPatch => {
    const size = Buffer.byteLength(text);
    offset += size;
    return {
      ...{ base, archive: sha256(bytes), offset: offset - size, size },
      sha256: sha256(Buffer.from(text)),
    };
  });
  return { bytes, patches: named };
}

const [FIRST, SECOND] = [sha256(Buffer.from("first")), sha256(Buffer.from("second"))];
const PATCHES = patchArchive(
  { base: FIRST, text: "a long patch" },
  { base: SECOND, text: "short" },
);
const { index } = CHAIN.release.archive;
const RELEASE: Release = {
  ...CHAIN.release,
  archive: {
    ...CHAIN.release.archive,
    index: { ...index, json: sha256(JSON_TEXT), patches: PATCHES.patches },
  },
};
const ARCHIVES = new Map([
  [CHAIN.release.archive.sha256, CHAIN.bytes],
  [sha256(PATCHES.bytes), PATCHES.bytes],
]);

/** A world that keeps these indexes, and where patches give the right one. */
function worldWith(kept: readonly string[], options: FetchWorldOptions = {}) {
  const world = new FetchWorld(CHAIN, {
    ...options,
    mirrors: options.mirrors ?? { one: { archives: ARCHIVES } },
  });
  for (const one of kept) world.indexes.set(one, Buffer.from("kept"));
  for (const text of ["a long patch", "short"]) world.patched.set(text, JSON_TEXT);
  return world;
}

const read = (world: FetchWorld, signal?: AbortSignal, release = RELEASE) =>
  readIndex(release, null, world.tools(), signal);

const WHOLE = `one: archive 512-${512 + index.size}`;
const patchRequest = (at: number): string => {
  const { offset, size } = PATCHES.patches[at] ?? { offset: 0, size: 0 };
  return `one: ${sha256(PATCHES.bytes)} ${offset}-${offset + size}`;
};

describe("a patch", () => {
  test("makes the index out of a kept one", async () => {
    const world = worldWith([FIRST]);
    const { contents, json } = await read(world);
    expect(json.equals(JSON_TEXT)).toBe(true);
    expect(contents.index).toEqual(CHAIN.index);
    expect(world.events).toEqual([patchRequest(0), `patch kept ${FIRST} with a long patch`]);
    expect(world.lines()).toEqual(["debug: the index came as a patch of 12 bytes"]);
    expect(world.served).toEqual([]);
  });

  test("is the smallest one whose base is kept", async () => {
    const world = worldWith([FIRST, SECOND]);
    await read(world);
    expect(world.events).toEqual([patchRequest(1), `patch kept ${SECOND} with short`]);
  });

  test("is not read if no base is kept, or if the whole index is as small", async () => {
    const world = worldWith([]);
    await read(world);
    expect(world.events).toEqual([WHOLE]);
    const text = "x".repeat(index.size);
    const large = patchArchive({ base: FIRST, text });
    const release = (size: number): Release => ({
      ...RELEASE,
      archive: {
        ...RELEASE.archive,
        index: { ...RELEASE.archive.index, patches: large.patches, size },
      },
    });
    const other = worldWith([FIRST]);
    await read(other, undefined, release(index.size));
    expect(other.events).toEqual([WHOLE]);
  });

  test("is not looked for if there is none", async () => {
    const world = worldWith([FIRST]);
    const { patches: _, ...without } = RELEASE.archive.index;
    await read(world, undefined, { ...RELEASE, archive: { ...RELEASE.archive, index: without } });
    expect(world.events).toEqual([WHOLE]);
  });

  test.each<[string, (world: FetchWorld) => unknown, string]>([
    [
      "gives another index",
      (world) => world.patched.set("a long patch", Buffer.from("{}")),
      `patched index: expected sha256 ${sha256(JSON_TEXT)}, found ${sha256(Buffer.from("{}"))}`,
    ],
    [
      "cannot be applied",
      (world) => world.broken.set("patch", new PullError("TOOL_MISSING", "no zstd")),
      "no zstd",
    ],
  ])("that %s is told, and the index comes whole", async (_, damage, words) => {
    const world = worldWith([FIRST, SECOND].slice(0, 1));
    damage(world);
    const { json } = await read(world);
    expect(json.equals(JSON_TEXT)).toBe(true);
    expect(world.events.at(-1)).toBe(WHOLE);
    expect(world.lines()).toEqual([
      `info: the index is read whole, its patch did not serve: ${words}`,
    ]);
    expect(world.served).toEqual(["one: ok"]);
  });

  test("with other bytes is taken from the next mirror, without a warning", async () => {
    const altered = Buffer.from(PATCHES.bytes);
    altered.write("A", 4);
    const archives = new Map([...ARCHIVES, [sha256(PATCHES.bytes), altered]]);
    const world = worldWith([FIRST], {
      mirrors: { one: { archives }, two: { archives: ARCHIVES } },
    });
    await read(world);
    const found = sha256(altered.subarray(4, 16));
    expect(world.events.at(-1)).toBe(`patch kept ${FIRST} with a long patch`);
    expect(world.lines()).toEqual([
      `debug: one: index patch in ${sha256(PATCHES.bytes)}.tar: expected sha256 ` +
        `${PATCHES.patches[0]?.sha256}, found ${found}; the next mirror is tried`,
      "debug: the index came as a patch of 12 bytes",
    ]);
    expect(world.served).toEqual([]);
  });

  test("is not replaced by the whole index when the fetch is told to stop", async () => {
    const world = worldWith([FIRST]);
    const failure = await rejectionOf(read(world, AbortSignal.abort()));
    expect(failure.code).toBe("INTERRUPTED");
    expect(world.events).toEqual([patchRequest(0)]);
  });
});

describe("a whole index", () => {
  test("goes into staging, and is taken from there the next time", async () => {
    const world = new FetchWorld(CHAIN);
    const staging = world.staging.open(CHAIN.release.archive.sha256);
    await staging.prepare();
    await readIndex(CHAIN.release, staging, world.tools(), undefined);
    expect((await staging.readIndex())?.equals(CHAIN.compressed)).toBe(true);
    const { json, contents } = await readIndex(CHAIN.release, staging, world.tools(), undefined);
    expect(json.equals(JSON_TEXT)).toBe(true);
    expect(contents.narInfos).toHaveLength(3);
    expect(world.events).toEqual(["prepare staging", WHOLE, "write index"]);
    expect(world.lines()).toEqual([]);
  });

  test("that is damaged in staging is read again", async () => {
    const world = new FetchWorld(CHAIN);
    const staging = world.staging.open(CHAIN.release.archive.sha256);
    await staging.prepare();
    await staging.writeIndex(Buffer.from("torn"));
    await readIndex(CHAIN.release, staging, world.tools(), undefined);
    expect((await staging.readIndex())?.equals(CHAIN.compressed)).toBe(true);
    expect(world.lines()).toEqual([
      `debug: the staged index is read again: archive index: expected sha256 ${index.sha256}, ` +
        `found ${sha256(Buffer.from("torn"))}`,
    ]);
  });

  test("with another hash is not written, and comes from the next mirror", async () => {
    const altered = Buffer.from(CHAIN.bytes);
    altered[600] = (altered[600] ?? 0) ^ 1;
    const archives = new Map([[CHAIN.release.archive.sha256, altered]]);
    const world = new FetchWorld(CHAIN, { mirrors: { one: { archives }, two: {} } });
    await world.fetch();
    expect(world.served).toEqual(["one: ARCHIVE_CORRUPT", "two: ok", "one: ok"]);
    expect(world.only("write index")).toHaveLength(1);
  });

  test("whose paths no trusted key signed is refused, whichever mirror has it", async () => {
    const world = new FetchWorld(CHAIN, { mirrors: { one: {}, two: {} } });
    const tools = world.tools();
    const settings = { ...tools.settings, storeKeys: [] };
    world.tools = () => ({ ...tools, settings });
    expect((await rejectionOf(world.fetch())).code).toBe("PATH_SIGNATURE");
    expect(world.only("two:", "write")).toEqual([]);
    expect(world.staging.archives.size).toBe(0);
  });
});

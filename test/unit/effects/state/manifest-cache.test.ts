import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ManifestCacheFile } from "../../../../agent/effects/state/manifest-cache.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const MIRROR = "https://mirror.example.org";
const MANIFEST = { bytes: Buffer.from([0, 255, 10]), validators: { etag: '"a"' } };

async function cacheDirectory() {
  const directory = await temporaryDirectory();
  return {
    file: join(directory, "manifests.json"),
    open: () => new ManifestCacheFile(directory),
  };
}

test("an empty cache knows nothing and writes nothing", async () => {
  const { open, file } = await cacheDirectory();
  const cache = open();
  expect(await cache.get(MIRROR, "stable")).toBeNull();
  await cache.save();
  await expect(stat(file)).rejects.toMatchObject({ code: "ENOENT" });
});

test("what was put is there for the next process, once it is saved", async () => {
  const { open } = await cacheDirectory();
  const cache = open();
  const lastModified = "Sat, 31 Jan 2026 12:00:00 GMT";
  await cache.put(MIRROR, "stable", MANIFEST);
  await cache.put(MIRROR, "canary", { bytes: Buffer.from("{}"), validators: { lastModified } });
  expect(await open().get(MIRROR, "stable")).toBeNull();
  await cache.save();
  expect(await open().get(MIRROR, "stable")).toEqual({
    ...{ bytes: MANIFEST.bytes, validators: { etag: '"a"', lastModified: undefined } },
  });
  expect(await open().get(MIRROR, "canary")).toMatchObject({ validators: { lastModified } });
});

test("mirrors and channels are kept apart", async () => {
  const { open } = await cacheDirectory();
  const cache = open();
  await cache.put(MIRROR, "stable", MANIFEST);
  expect(await cache.get(MIRROR, "canary")).toBeNull();
  expect(await cache.get(`${MIRROR}/`, "stable")).toBeNull();
});

test("what was dropped is gone for the next process too", async () => {
  const { open } = await cacheDirectory();
  const cache = open();
  await cache.put(MIRROR, "stable", MANIFEST);
  await cache.save();
  await cache.drop(MIRROR, "stable");
  expect(await cache.get(MIRROR, "stable")).toBeNull();
  await cache.save();
  expect(await open().get(MIRROR, "stable")).toBeNull();
});

test("nothing is written where nothing changed", async () => {
  const { open, file } = await cacheDirectory();
  const cache = open();
  await cache.put(MIRROR, "stable", MANIFEST);
  await cache.save();
  const before = (await stat(file)).ino;
  await cache.drop(MIRROR, "never there");
  await cache.save();
  expect((await stat(file)).ino).toBe(before);
});

describe("a damaged file", () => {
  test.each([
    ["torn", (text: string) => text.slice(0, 40)],
    ["altered", (text: string) => text.replace("AP8K", "AP8L")],
    ["empty", () => ""],
  ])("that is %s is an empty cache, which mends itself", async (_, damage) => {
    const { open, file } = await cacheDirectory();
    const cache = open();
    await cache.put(MIRROR, "stable", MANIFEST);
    await cache.save();
    await writeFile(file, damage(await readFile(file, "utf8")));
    const again = open();
    expect(await again.get(MIRROR, "stable")).toBeNull();
    await again.put(MIRROR, "stable", MANIFEST);
    await again.save();
    expect(await open().get(MIRROR, "stable")).toMatchObject({ bytes: MANIFEST.bytes });
  });
});

import { chmod, mkdir, readFile, readdir, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  removeDurably,
  syncDirectory,
  writeDurably,
} from "../../../../agent/effects/files/durable-file.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

async function modeOf(path: string): Promise<number> {
  return (await stat(path)).mode & 0o777;
}

describe("writeDurably", () => {
  test("makes a file that only its owner may read", async () => {
    const path = join(await temporaryDirectory(), "file");
    await writeDurably(path, "contents");
    expect(await readFile(path, "utf8")).toBe("contents");
    expect(await modeOf(path)).toBe(0o600);
  });

  test("gives the mode that was asked for, whatever the old file had", async () => {
    const path = join(await temporaryDirectory(), "file");
    await writeFile(path, "old");
    await chmod(path, 0o777);
    await writeDurably(path, "new", 0o644);
    expect(await readFile(path, "utf8")).toBe("new");
    expect(await modeOf(path)).toBe(0o644);
  });

  test("writes any bytes and leaves nothing beside the file", async () => {
    const directory = await temporaryDirectory();
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 100_000 }), async (bytes) => {
        await writeDurably(join(directory, "file"), bytes);
        expect((await readFile(join(directory, "file"))).equals(bytes)).toBe(true);
        expect(await readdir(directory)).toEqual(["file"]);
      }),
      { numRuns: 20 },
    );
  });

  test("replaces a link and not what the link points at", async () => {
    const directory = await temporaryDirectory();
    await writeFile(join(directory, "target"), "untouched");
    await symlink("target", join(directory, "link"));
    await writeDurably(join(directory, "link"), "new");
    expect(await readFile(join(directory, "target"), "utf8")).toBe("untouched");
    expect(await readFile(join(directory, "link"), "utf8")).toBe("new");
  });

  test("of many at once leaves one whole file and nothing else", async () => {
    const directory = await temporaryDirectory();
    const texts = Array.from({ length: 20 }, (_, at) => String(at).repeat(1_000));
    await Promise.all(texts.map((text) => writeDurably(join(directory, "file"), text)));
    expect(texts).toContain(await readFile(join(directory, "file"), "utf8"));
    expect(await readdir(directory)).toEqual(["file"]);
  });

  test("removes its temporary file where the name cannot be taken, and keeps the error", async () => {
    const directory = await temporaryDirectory();
    await mkdir(join(directory, "file"));
    await expect(writeDurably(join(directory, "file"), "x")).rejects.toMatchObject({
      code: "EISDIR",
    });
    expect(await readdir(directory)).toEqual(["file"]);
  });

  test("says that a directory does not exist", async () => {
    const path = join(await temporaryDirectory(), "missing", "file");
    await expect(writeDurably(path, "x")).rejects.toMatchObject({ code: "ENOENT" });
  });
});

test("syncDirectory says that a directory does not exist", async () => {
  const directory = await temporaryDirectory();
  await syncDirectory(directory);
  await expect(syncDirectory(join(directory, "missing"))).rejects.toMatchObject({ code: "ENOENT" });
});

test("removeDurably says whether there was a file", async () => {
  const path = join(await temporaryDirectory(), "file");
  await writeFile(path, "");
  expect(await removeDurably(path)).toBe(true);
  expect(await removeDurably(path)).toBe(false);
});

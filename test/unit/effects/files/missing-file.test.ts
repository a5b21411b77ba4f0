import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import {
  exists,
  ifMissing,
  isNotFound,
  readIfExists,
  readLinkIfExists,
} from "../../../../agent/effects/files/missing-file.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

test("isNotFound is about missing files and nothing else", async () => {
  const directory = await temporaryDirectory();
  await writeFile(join(directory, "file"), "");
  const error = (path: string): Promise<unknown> =>
    readFile(path).then(
      () => null,
      (thrown: unknown) => thrown,
    );
  expect(isNotFound(await error(join(directory, "missing")))).toBe(true);
  expect(isNotFound(await error(join(directory, "file", "below")))).toBe(true);
  expect(isNotFound(await error(directory))).toBe(false);
  expect([null, new Error("x"), { code: "EACCES" }].map(isNotFound)).toEqual([false, false, false]);
});

test("what is missing gives the other value; other errors are thrown", async () => {
  const directory = await temporaryDirectory();
  expect(await ifMissing(readFile(join(directory, "file")), "other")).toBe("other");
  expect(await readIfExists(join(directory, "file"))).toBeNull();
  expect(await exists(join(directory, "file"))).toBe(false);
  expect(await exists(directory)).toBe(true);
  await writeFile(join(directory, "file"), "text");
  expect(await ifMissing(readFile(join(directory, "file"), "utf8"), "other")).toBe("text");
  expect(await readIfExists(join(directory, "file"))).toBe("text");
  await expect(readIfExists(directory)).rejects.toMatchObject({ code: "EISDIR" });
});

test("only a link has a target", async () => {
  const directory = await temporaryDirectory();
  await mkdir(join(directory, "real"));
  await symlink("nowhere", join(directory, "link"));
  expect(await readLinkIfExists(join(directory, "link"))).toBe("nowhere");
  expect(await readLinkIfExists(join(directory, "real"))).toBeNull();
  expect(await readLinkIfExists(join(directory, "missing"))).toBeNull();
});

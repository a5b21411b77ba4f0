import { chmod, mkdir, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { toPullError } from "../../../../agent/core/errors.ts";
import { makeDirectory } from "../../../../agent/effects/files/make-directory.ts";
import { mountReadOnly, mountTmpfs, whyNoMounts } from "../../../support/scratch-mount.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const noMounts = whyNoMounts();

test("what is missing is made with its mode, and what is there stays as it is", async () => {
  const root = await temporaryDirectory();
  await makeDirectory(join(root, "a/b"), 0o700);
  expect((await stat(join(root, "a"))).mode & 0o777).toBe(0o700);
  await chmod(join(root, "a"), 0o755);
  await makeDirectory(join(root, "a/b/c"), 0o700);
  await makeDirectory(join(root, "a/b/c"), 0o700);
  expect((await stat(join(root, "a"))).mode & 0o777).toBe(0o755);
});

test("a link to a directory is a directory, and a file is none", async () => {
  const root = await temporaryDirectory();
  await symlink(".", join(root, "link"));
  await writeFile(join(root, "file"), "");
  await makeDirectory(join(root, "link"));
  await expect(makeDirectory(join(root, "file"))).rejects.toMatchObject({ code: "EEXIST" });
  await expect(makeDirectory(join(root, "file/below"))).rejects.toMatchObject({ code: "EEXIST" });
});

test("two at once make the same directory", async () => {
  const root = await temporaryDirectory();
  await Promise.all(Array.from({ length: 8 }, () => makeDirectory(join(root, "a/b/c/d"))));
  expect((await stat(join(root, "a/b/c/d"))).isDirectory()).toBe(true);
});

test("a file system that takes no directories ends with its error", async () => {
  await expect(makeDirectory("/proc/no/such/place")).rejects.toThrow("ENOENT");
});

describe.skipIf(noMounts !== null)("the disk's own fault has its own code", () => {
  async function codeOf(path: string): Promise<string> {
    return makeDirectory(path).then(
      () => "made",
      (error: unknown) => toPullError(error).code,
    );
  }

  test("if it is read-only", async () => {
    const root = await temporaryDirectory();
    await mkdir(join(root, "there"));
    mountReadOnly(root);
    expect(await codeOf(join(root, "new"))).toBe("PERMISSION_DENIED");
    expect(await codeOf(join(root, "there/new/below"))).toBe("PERMISSION_DENIED");
    expect(await codeOf(join(root, "there"))).toBe("made");
  });

  test("if it has no inode left", async () => {
    const root = join(await temporaryDirectory(), "disk");
    await mountTmpfs(root, "64k,nr_inodes=2");
    expect(await codeOf(join(root, "one"))).toBe("made");
    expect(await codeOf(join(root, "two"))).toBe("DISK_FULL");
    expect(await codeOf(join(root, "one/two/three"))).toBe("DISK_FULL");
  });
});

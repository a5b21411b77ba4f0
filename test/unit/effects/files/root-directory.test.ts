import { execFileSync } from "node:child_process";
import {
  link,
  lstat,
  mkdir,
  readFile,
  readdir,
  readlink,
  rename,
  symlink,
  unlink,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { RootDirectory, fileNamed } from "../../../../agent/effects/files/root-directory.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

let outside: string;
let stick: string;
let root: RootDirectory;

beforeEach(async () => {
  const top = await temporaryDirectory();
  outside = join(top, "outside");
  stick = join(top, "stick");
  await mkdir(outside);
  await mkdir(stick);
  await writeFile(join(outside, "precious"), "precious");
  root = new RootDirectory(stick);
});

/** Everything outside of the root, to see that it stays. */
async function untouched(): Promise<void> {
  expect(await readdir(outside)).toEqual(["precious"]);
  expect(await readFile(join(outside, "precious"), "utf8")).toBe("precious");
}

describe("ordinary use", () => {
  test("writes, reads, lists, renames and removes below the root", async () => {
    await root.makeDirectory("channels/stable");
    await root.writeFile("channels/stable/manifest.json", "one");
    await root.writeFile("channels/stable/manifest.json", "two", 0o600);
    expect((await root.readFile("channels/stable/manifest.json", 3)).toString()).toBe("two");
    expect((await root.stat("channels/stable/manifest.json"))?.mode).toBe(0o100600);
    expect((await root.list("channels/stable")).map(({ name }) => name)).toEqual(["manifest.json"]);
    await root.rename("channels/stable/manifest.json", "channels/b");
    await root.writeFile("channels/a", "");
    expect((await root.list("channels")).map(({ name }) => name)).toEqual(["a", "b", "stable"]);
    expect(await root.pathOf("channels/stable")).toBe(join(stick, "channels/stable"));
    await root.removeFile("channels/a");
    await root.removeDirectory("channels/stable");
    expect(await readdir(join(stick, "channels"))).toEqual(["b"]);
    await root.removeTree("channels");
    expect(await readdir(stick)).toEqual([]);
  });

  test("what is missing is null, nothing, or ENOENT", async () => {
    expect(await root.readFileIfExists("a/b", 10)).toBeNull();
    expect(await root.listIfExists("a")).toEqual([]);
    expect(await root.stat("a")).toBeNull();
    expect((await root.stat(""))?.isDirectory()).toBe(true);
    await root.removeFile("a/b");
    await root.removeDirectory("a");
    await root.removeTree("a/b");
    await expect(root.readFile("a", 10)).rejects.toMatchObject({ code: "ENOENT" });
    await expect(root.list("a")).rejects.toMatchObject({ code: "ENOENT" });
    await expect(root.pathOf("a")).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("a file of exactly the bound is read, a longer one is refused", async () => {
    await root.writeFile("long", Buffer.alloc(200_000, 1));
    expect(await root.readFile("long", 200_000)).toHaveLength(200_000);
    const error = await rejectionOf(root.readFile("long", 199_999));
    expect(error.code).toBe("UNSAFE_FILE");
    expect(error.message).toBe(
      `${join(stick, "long")}: expected at most 199999 bytes, found 200000`,
    );
  });

  test("creating needs a name that is free; opening or creating does not", async () => {
    const first = await root.createFile("lock");
    await first.write("12");
    await first.close();
    await expect(root.createFile("lock")).rejects.toMatchObject({ code: "EEXIST" });
    const again = await root.openOrCreate("lock");
    expect((await again.readFile()).toString()).toBe("12");
    await again.close();
    const other = await root.openOrCreate("other");
    await other.close();
    expect((await lstat(join(stick, "other"))).isFile()).toBe(true);
  });

  test("a failed write leaves no temporary name", async () => {
    await writeFile(join(stick, "taken"), "old");
    await expect(root.writeFile("taken", 7 as never)).rejects.toThrow("must be of type string");
    expect(await readdir(stick)).toEqual(["taken"]);
    expect(await readFile(join(stick, "taken"), "utf8")).toBe("old");
  });

  test.each(["..", "a/../b", "/etc/passwd", "a//b", "./a", "a/", "a\0b"])(
    "%j is no name below the root",
    async (name) => {
      await expect(root.readFile(name, 10)).rejects.toThrow("expected names below the root");
    },
  );

  test("regular files are placed and removed by their names", async () => {
    await root.makeDirectory("d");
    await root.writeFile("d/a", "a");
    await root.writeFile("b", "b");
    expect((await root.statFile("b"))?.size).toBe(1);
    expect(await root.statFile("c")).toBeNull();
    await root.placeFile("d/a", "b");
    await root.syncNames("");
    expect((await root.readFile("b", 1)).toString()).toBe("a");
    expect(await root.removeRegularFile("b")).toBe(true);
    expect(await root.removeRegularFile("b")).toBe(false);
    expect(await readdir(stick)).toEqual(["d"]);
  });

  test("a work directory gets a new name, and is its owner's alone", async () => {
    await root.makeDirectory("d");
    const [one, other] = [
      await root.makeWorkDirectory("d/work-"),
      await root.makeWorkDirectory("w-"),
    ];
    expect(one).toMatch(/^d\/work-[A-Za-z0-9]{6}$/);
    expect(other).toMatch(/^w-[A-Za-z0-9]{6}$/);
    expect((await lstat(join(stick, one))).mode & 0o777).toBe(0o700);
    expect((await lstat(join(stick, other))).isDirectory()).toBe(true);
  });

  test("a root that is held stays the same, whatever is mounted in its place", async () => {
    await RootDirectory.holding(stick, async (held) => {
      await rename(stick, `${stick}-gone`);
      await mkdir(stick);
      await held?.makeDirectory("reports");
      await held?.writeFile("reports/a", "x");
      expect(held?.nameOf("reports")).toBe(join(stick, "reports"));
    });
    expect(await readdir(stick)).toEqual([]);
    expect(await readFile(join(`${stick}-gone`, "reports/a"), "utf8")).toBe("x");
    expect(await RootDirectory.holding(join(stick, "none"), async (held) => held)).toBeNull();
  });

  test("a directory below may be a root of its own, and stays it", async () => {
    await root.makeDirectory("a/reports");
    await root.writeFile("a/reports/x", "x");
    await symlink(outside, join(stick, "a/link"));
    await root.within("a/reports", async (reports) => {
      await rename(join(stick, "a/reports"), join(stick, "a/gone"));
      await symlink(outside, join(stick, "a/reports"));
      expect((await reports.list("")).map(({ name }) => name)).toEqual(["x"]);
      expect((await reports.stat(""))?.isDirectory()).toBe(true);
      await reports.makeDirectory("deeper");
      await reports.writeFile("deeper/y", "y");
      expect(reports.nameOf("x")).toBe(join(stick, "a/reports/x"));
    });
    expect(await readFile(join(stick, "a/gone/deeper/y"), "utf8")).toBe("y");
    const error = await rejectionOf(root.within("a/link", async () => null));
    expect(error.code).toBe("UNSAFE_FILE");
    await untouched();
  });

  test("a root is made with what is above it", async () => {
    const deep = new RootDirectory(join(stick, "a/b"));
    await deep.makeRoot();
    await deep.makeRoot();
    expect(await readdir(join(stick, "a"))).toEqual(["b"]);
  });

  test("a file that an operator named lies below its directory", () => {
    const { root: above, name } = fileNamed("some/where/draft.json");
    expect([above.path, name]).toEqual(["some/where", "draft.json"]);
    expect(fileNamed("draft.json").root.nameOf("draft.json")).toBe("draft.json");
  });

  test("the root itself may be a link: the operator named it", async () => {
    await symlink(stick, join(outside, "link"));
    await new RootDirectory(join(outside, "link")).writeFile("a", "x");
    expect(await readFile(join(stick, "a"), "utf8")).toBe("x");
    await unlink(join(outside, "link"));
  });
});

describe("a link in place of a directory", () => {
  const uses: [string, (root: RootDirectory) => Promise<unknown>][] = [
    ["readFile", (it) => it.readFile("d/precious", 100)],
    ["readFileIfExists", (it) => it.readFileIfExists("d/precious", 100)],
    ["openFile", (it) => it.openFile("d/precious")],
    ["openForUpdate", (it) => it.openForUpdate("d/precious")],
    ["openOrCreate", (it) => it.openOrCreate("d/new")],
    ["createFile", (it) => it.createFile("d/new")],
    ["writeFile", (it) => it.writeFile("d/precious", "gone")],
    ["makeDirectory below it", (it) => it.makeDirectory("d/new")],
    ["makeDirectory of it", (it) => it.makeDirectory("d")],
    ["list", (it) => it.list("d")],
    ["listIfExists", (it) => it.listIfExists("d")],
    ["stat below it", (it) => it.stat("d/precious")],
    ["rename from it", (it) => it.rename("d/precious", "mine")],
    ["rename into it", (it) => it.rename("mine", "d/precious")],
    ["removeFile", (it) => it.removeFile("d/precious")],
    ["removeDirectory", (it) => it.removeDirectory("d/precious")],
    ["removeTree below it", (it) => it.removeTree("d/precious")],
    ["pathOf", (it) => it.pathOf("d")],
    ["syncParent", (it) => it.syncParent("d/precious")],
    ["syncNames", (it) => it.syncNames("d")],
    ["openLock", (it) => it.openLock("d/precious")],
    ["makeWorkDirectory", (it) => it.makeWorkDirectory("d/work-")],
    ["placeFile from it", (it) => it.placeFile("d/precious", "mine")],
    ["placeFile into it", (it) => it.placeFile("mine", "d/precious")],
    ["statFile", (it) => it.statFile("d/precious")],
    ["removeRegularFile", (it) => it.removeRegularFile("d/precious")],
  ];

  test.each(uses)("%s refuses it", async (_, use) => {
    await symlink(outside, join(stick, "d"));
    await writeFile(join(stick, "mine"), "mine");
    const error = await rejectionOf(use(root));
    expect(error.code).toBe("UNSAFE_FILE");
    expect(error.message).toContain(
      `${join(stick, "d")}: expected a directory, found a symbolic link;`,
    );
    await untouched();
    expect(await readFile(join(stick, "mine"), "utf8")).toBe("mine");
    expect(await readlink(join(stick, "d"))).toBe(outside);
  });

  test("removeTree removes the link, not what it leads to", async () => {
    await mkdir(join(stick, "work/inner"), { recursive: true });
    await symlink(outside, join(stick, "work/inner/link"));
    await root.removeTree("work");
    await symlink(outside, join(stick, "work"));
    await root.removeTree("work");
    expect(await readdir(stick)).toEqual([]);
    await untouched();
  });

  test("one that takes a directory's place while it is in use is not followed", async () => {
    await mkdir(join(stick, "d"));
    const original = root.list.bind(root);
    await writeFile(join(stick, "d/a"), "");
    const entries = await original("d");
    await rename(join(stick, "d"), join(stick, "old"));
    await symlink(outside, join(stick, "d"));
    for (const { name } of entries) {
      expect((await rejectionOf(root.removeFile(`d/${name}`))).code).toBe("UNSAFE_FILE");
    }
    await untouched();
  });

  test("a tree deeper than any of ours is refused and not walked", async () => {
    await mkdir(join(stick, Array.from({ length: 70 }, () => "d").join("/")), { recursive: true });
    expect((await rejectionOf(root.removeTree("d"))).message).toContain(
      "expected at most 64 levels of directories",
    );
  });
});

describe("something else in place of a file", () => {
  const kinds: [string, (path: string) => Promise<unknown>][] = [
    ["a symbolic link", (path) => symlink(join(outside, "precious"), path)],
    ["a directory", (path) => mkdir(path)],
    ["a FIFO", async (path) => execFileSync("mkfifo", [path])],
    [
      "a FIFO, a socket or a device",
      (path) =>
        new Promise((resolve) => {
          const server = createServer().listen(path, () => {
            resolve(null);
          });
          onTestFinished(() => void server.close());
        }),
    ],
  ];

  test.each(kinds)("reading refuses %s, at once", async (found, make) => {
    await make(join(stick, "file"));
    for (const use of [
      () => root.readFile("file", 100),
      () => root.openForUpdate("file"),
      () => root.openOrCreate("file"),
    ]) {
      const error = await rejectionOf(use());
      expect(error.code).toBe("UNSAFE_FILE");
      expect(error.message).toMatch(/expected a regular file, found (a|an) /);
    }
    const error = await rejectionOf(root.readFile("file", 100));
    expect(error.message).toContain(`found ${found};`);
    await untouched();
  });

  test.each(kinds)("nothing is written, placed or removed in the place of %s", async (_, make) => {
    await make(join(stick, "file"));
    await root.writeFile("new", "mine");
    const was = await lstat(join(stick, "file"));
    for (const use of [
      () => root.writeFile("file", "mine"),
      () => root.placeFile("new", "file"),
      () => root.statFile("file"),
      () => root.openLock("file"),
    ]) {
      const error = await rejectionOf(use());
      expect(error.code).toBe("UNSAFE_FILE");
      expect(error.message).toContain(`${join(stick, "file")}: expected a regular file, found a`);
    }
    expect(await root.removeRegularFile("file")).toBe(false);
    expect((await lstat(join(stick, "file"))).ino).toBe(was.ino);
    expect(await readdir(stick)).toEqual(["file", "new"]);
    await untouched();
  });

  test("a file with another name is not written to, but may be a lock", async () => {
    await link(join(outside, "precious"), join(stick, "file"));
    for (const use of [() => root.openForUpdate("file"), () => root.openOrCreate("file")]) {
      const error = await rejectionOf(use());
      expect(error.code).toBe("UNSAFE_FILE");
      expect(error.message).toContain(
        "expected a file with only this name, found one with 2 names",
      );
    }
    await (await root.openLock("file")).close();
    await untouched();
  });

  test("a file in place of a directory is named", async () => {
    await writeFile(join(stick, "d"), "");
    const error = await rejectionOf(root.writeFile("d/a", "x"));
    expect(error.message).toContain("expected a directory, found a regular file");
  });
});

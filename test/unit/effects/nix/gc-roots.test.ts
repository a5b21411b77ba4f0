import { lstat, mkdir, readdir, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { gcRootsIn } from "../../../../agent/effects/nix/gc-roots.ts";
import { samplePath } from "../../../support/sample-release.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const [OLD, NEW] = [samplePath("nixos-system-web1-1"), samplePath("nixos-system-web1-2")];

test("a root is a link in a directory that is made for it", async () => {
  const directory = join(await temporaryDirectory(), "a", "gcroots");
  const roots = gcRootsIn(directory);
  await roots.hold("current", OLD);
  expect(await readlink(join(directory, "current"))).toBe(OLD);
  expect(await roots.held("current")).toBe(OLD);
});

test("a root that moves on leaves nothing behind", async () => {
  const directory = await temporaryDirectory();
  const roots = gcRootsIn(directory);
  await roots.hold("current", OLD);
  await roots.hold("current", NEW);
  expect(await roots.held("current")).toBe(NEW);
  expect(await readdir(directory)).toEqual(["current"]);
});

test("a root is made also where an earlier attempt left its temporary name", async () => {
  const directory = await temporaryDirectory();
  await writeFile(join(directory, ".current.tmp"), "left over");
  const roots = gcRootsIn(directory);
  await roots.hold("current", NEW);
  expect(await readdir(directory)).toEqual(["current"]);
});

test("a root that is released is gone, and releasing it again does no harm", async () => {
  const roots = gcRootsIn(await temporaryDirectory());
  await roots.hold("pending", OLD);
  await roots.hold("current", NEW);
  await roots.release("pending");
  await roots.release("pending");
  expect(await roots.held("pending")).toBeNull();
  expect(await roots.held("current")).toBe(NEW);
});

test("roots below a name are added one by one, and released together", async () => {
  const directory = await temporaryDirectory();
  const roots = gcRootsIn(directory);
  await roots.holdAlso("pending-paths", [OLD]);
  await roots.holdAlso("pending-paths", [OLD, NEW]);
  const names = await readdir(join(directory, "pending-paths"));
  const targets = names.map((name) => readlink(join(directory, "pending-paths", name)));
  expect((await Promise.all(targets)).sort()).toEqual([OLD, NEW].sort());
  await roots.release("pending-paths");
  expect(await readdir(directory)).toEqual([]);
});

test("nothing is held in a directory that is not there", async () => {
  const directory = join(await temporaryDirectory(), "missing");
  expect(await gcRootsIn(directory).held("current")).toBeNull();
  await expect(lstat(directory)).rejects.toMatchObject({ code: "ENOENT" });
});

test("something else in a root's place is an error", async () => {
  const directory = await temporaryDirectory();
  await mkdir(join(directory, "current"));
  await expect(gcRootsIn(directory).hold("current", NEW)).rejects.toMatchObject({ code: "EISDIR" });
});

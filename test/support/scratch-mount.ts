import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, rename } from "node:fs/promises";
import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import { removeTree } from "./temporary.ts";

function run(command: string, ...args: string[]): void {
  execFileSync(command, args, { stdio: ["ignore", "ignore", "pipe"], encoding: "utf8" });
}

/** Why file systems cannot be mounted here, or null where they can. */
export function whyNoMounts(): string | null {
  const directory = mkdtempSync(join(tmpdir(), "nixos-pull-mount-"));
  try {
    run("mount", "-t", "tmpfs", "none", directory);
    run("umount", directory);
    return null;
  } catch (error) {
    return (error as Error).message.split("\n")[0] ?? "mount does not work";
  } finally {
    rmdirSync(directory);
  }
}

/** Mounts an empty file system of a few bytes at a directory, until the test ends. */
export async function mountTmpfs(path: string, size: string): Promise<void> {
  await mkdir(path, { recursive: true });
  run("mount", "-t", "tmpfs", "-o", `size=${size}`, "none", path);
  onTestFinished(() => {
    unmount(path);
  });
}

/** Puts a directory with what it holds on a file system of its own, until the test ends. */
export async function moveToTmpfs(path: string, size: string): Promise<void> {
  const before = await mkdtemp(join(dirname(path), ".before-"));
  await rename(path, join(before, "it"));
  await mountTmpfs(path, size);
  run("cp", "-a", `${join(before, "it")}/.`, path);
  await removeTree(before);
}

/** Gives a mounted file system another size. */
export function resize(path: string, size: string): void {
  run("mount", "-o", `remount,size=${size}`, path);
}

/** Makes a directory read-only, even for root, until `unmount` or the test's end. */
export function mountReadOnly(path: string): void {
  run("mount", "--bind", path, path);
  run("mount", "-o", "remount,ro,bind", path);
  onTestFinished(() => {
    unmount(path);
  });
}

/** Takes a mount away, if it is still there. */
export function unmount(path: string): void {
  try {
    run("mountpoint", "-q", path);
  } catch {
    return;
  }
  run("umount", path);
}

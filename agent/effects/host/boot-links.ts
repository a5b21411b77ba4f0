import { readlink, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { isNotFound } from "../files/durable-file.ts";

/** What a running kernel cannot change without a reboot (NixOS: links of a toplevel). */
const LINKS = ["kernel", "initrd", "kernel-modules"] as const;

/**
 * Whether a toplevel differs from the booted system in kernel, initrd or kernel modules.
 * False where either has no such links: there is nothing to boot then.
 */
export async function needsReboot(booted: string, toplevel: string): Promise<boolean> {
  for (const name of LINKS) {
    const [before, after] = await Promise.all([
      link(join(booted, name)),
      link(join(toplevel, name)),
    ]);
    if (before !== null && after !== null && before !== after) return true;
  }
  return false;
}

/**
 * Bytes that the boot loader's directory lacks for a new kernel and initrd beside the
 * old ones, or null where there is enough or no such directory.
 */
export async function missingBootSpace(
  bootDirectory: string,
  booted: string,
  toplevel: string,
): Promise<{ needed: number; free: number } | null> {
  if (!(await needsReboot(booted, toplevel))) return null;
  try {
    const sizes = await Promise.all(
      ["kernel", "initrd"].map(async (name) => (await stat(join(toplevel, name))).size),
    );
    const needed = sizes.reduce((sum, size) => sum + size, 0);
    const { bavail, bsize } = await statfs(bootDirectory);
    const free = bavail * bsize;
    return free < needed ? { needed, free } : null;
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}

async function link(path: string): Promise<string | null> {
  try {
    return await readlink(path);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (isNotFound(error) || code === "EINVAL") return null;
    throw error;
  }
}

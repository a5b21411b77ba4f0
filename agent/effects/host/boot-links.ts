import { stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { BootDirectory, BootLoader, NixStore } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { ifMissing, readLinkIfExists } from "../files/missing-file.ts";

/** Links of a toplevel (NixOS) to what only a reboot can replace. */
const LINKS = ["kernel", "initrd", "kernel-modules"] as const;

/**
 * The boot loader's directory and the booted system of a host, as its settings name them; the
 * boot loader knows its directory if they do not.
 */
export function bootDirectoryOf(
  { paths }: { paths: Pick<Settings["paths"], "boot" | "bootedSystem"> },
  store: Pick<NixStore, "realPath">,
  loader: Pick<BootLoader, "kernelDirectory">,
): BootDirectory {
  const { boot, bootedSystem } = paths;
  return {
    needsReboot: (toplevel) => needsReboot(bootedSystem, store.realPath(toplevel)),
    async missingSpace(toplevel) {
      const directory = boot ?? (await loader.kernelDirectory());
      if (directory === null) return null;
      const missing = await missingBootSpace(directory, bootedSystem, store.realPath(toplevel));
      return missing && { directory, ...missing };
    },
  };
}

/**
 * Whether a toplevel differs from the booted system in kernel, initrd or kernel modules.
 * False if one of them has no such links: such a system is not booted.
 */
export async function needsReboot(booted: string, toplevel: string): Promise<boolean> {
  for (const name of LINKS) {
    const [before, after] = await Promise.all([
      readLinkIfExists(join(booted, name)),
      readLinkIfExists(join(toplevel, name)),
    ]);
    if (before !== null && after !== null && before !== after) return true;
  }
  return false;
}

/**
 * Bytes that the boot loader's directory lacks for a new kernel and initrd beside the
 * old ones, or null if there is enough or no such directory.
 */
export async function missingBootSpace(
  bootDirectory: string,
  booted: string,
  toplevel: string,
): Promise<{ needed: number; free: number } | null> {
  if (!(await needsReboot(booted, toplevel))) return null;
  return ifMissing(compareSpace(bootDirectory, toplevel), null);
}

async function compareSpace(
  bootDirectory: string,
  toplevel: string,
): Promise<{ needed: number; free: number } | null> {
  const sizes = await Promise.all(
    ["kernel", "initrd"].map(async (name) => (await stat(join(toplevel, name))).size),
  );
  const needed = sizes.reduce((sum, size) => sum + size, 0);
  const { bavail, bsize } = await statfs(bootDirectory);
  const free = bavail * bsize;
  return free < needed ? { needed, free } : null;
}

import { stat, statfs } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type {
  BootDirectory,
  BootLoader,
  Generations,
  KernelPlace,
  NixStore,
} from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { ifMissing, readLinkIfExists } from "../files/missing-file.ts";

/** Links of a toplevel (NixOS) to what only a reboot can replace. */
const LINKS = ["kernel", "initrd", "kernel-modules"] as const;

/** Of these, what the boot loader's installer copies. */
const COPIED = ["kernel", "initrd"] as const;

/**
 * The boot loader's directory and the booted system of a host, as its settings name them; the
 * boot loader knows its directory if they do not.
 */
export function bootDirectoryOf(
  { paths }: { paths: Pick<Settings["paths"], "boot" | "bootedSystem"> },
  store: Pick<NixStore, "realPath">,
  loader: Pick<BootLoader, "kernelPlace">,
): BootDirectory {
  const { boot, bootedSystem } = paths;
  return {
    needsReboot: (toplevel) => needsReboot(bootedSystem, store.realPath(toplevel)),
    async missingSpace(toplevel, { staying, leaving }) {
      const found = await loader.kernelPlace();
      const directory = boot ?? found?.directory;
      if (directory === undefined) return null;
      const place = { directory, removesFirst: found?.removesFirst ?? false };
      const real = store.realPath(toplevel);
      if (!(await needsReboot(bootedSystem, real))) return null;
      const missing = await missingBootSpace(place, real, {
        staying: staying.map((it) => store.realPath(it)),
        leaving: leaving.map((it) => store.realPath(it)),
      });
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
 * Bytes that the boot loader's directory lacks for the kernel and initrd of a toplevel, or null if
 * there is enough or no such directory. What is there already needs no room.
 */
export async function missingBootSpace(
  { directory, removesFirst }: KernelPlace,
  toplevel: string,
  { staying, leaving }: Generations,
): Promise<{ needed: number; free: number } | null> {
  const space = await ifMissing(statfs(directory), null);
  if (space === null) return null;
  let needed = 0;
  for (const name of COPIED) {
    if ((await sizeOfCopy(directory, await targetOf(toplevel, name))) !== null) continue;
    needed += (await stat(join(toplevel, name))).size;
  }
  let free = space.bavail * space.bsize;
  if (removesFirst) {
    const kept = await targetsOf([toplevel, ...staying]);
    for (const target of await targetsOf(leaving)) {
      if (!kept.has(target)) free += (await sizeOfCopy(directory, target)) ?? 0;
    }
  }
  return free < needed ? { needed, free } : null;
}

/** The kernels and initrds of systems, as their links name them. */
async function targetsOf(toplevels: readonly string[]): Promise<Set<string>> {
  const targets = new Set<string>();
  for (const toplevel of toplevels) {
    for (const name of COPIED) {
      const target = await targetOf(toplevel, name);
      if (target !== null) targets.add(target);
    }
  }
  return targets;
}

function targetOf(toplevel: string, name: string): Promise<string | null> {
  return readLinkIfExists(join(toplevel, name));
}

/**
 * Bytes of the copy of a kernel or initrd; null if there is none. NixOS's installers for
 * systemd-boot and GRUB name it after its store path.
 */
async function sizeOfCopy(directory: string, target: string | null): Promise<number | null> {
  if (target === null) return null;
  const name = `${basename(dirname(target))}-${basename(target)}`;
  for (const copy of [join("EFI/nixos", `${name}.efi`), join("kernels", name)]) {
    const found = await ifMissing(stat(join(directory, copy)), null);
    if (found) return found.size;
  }
  return null;
}

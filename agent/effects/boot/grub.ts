import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { BootLoader, Trial } from "../../core/ports.ts";
import { exists, ifMissing, readIfExists } from "../files/missing-file.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { describeFailure, runProcess, type ProcessResult } from "../process/subprocess.ts";
import { initOf, parseGrubMenu, pathOf, type GrubMenu } from "./grub-menu.ts";

/** `grub-editenv` reads and writes one small file; what takes longer hangs. */
const TIMEOUT_MS = 60_000;

/** A disk that is slow or busy takes its time; other writers to it are waited for too. */
const FLUSH_TIMEOUT_MS = 10 * 60_000;

/** File systems that GRUB can write to: it has to forget the entry before it starts that. */
const WRITABLE = ["ext2", "ext3", "ext4", "vfat", "xfs"];

/** Where GRUB and what belongs to it lie on a host. */
export interface GrubPlaces {
  /** The boot directory: `grub/grub.cfg` is in it. */
  readonly boot: string;
  /** Where the running system's programs are, beside PATH. */
  readonly programs: string;
  readonly mountInfo?: string;
  readonly blockDevices?: string;
}

/** Whether GRUB's menu is in a boot directory. */
export async function isGrub({ boot }: Pick<GrubPlaces, "boot">): Promise<boolean> {
  return exists(join(boot, "grub/grub.cfg"));
}

/** GRUB, by way of its environment block: it starts `next_entry` once. */
export function grub(places: GrubPlaces): BootLoader {
  const environmentFile = join(places.boot, "grub/grubenv");
  const editenv = async (...args: readonly string[]): Promise<ProcessResult> => {
    const own = join(places.programs, "grub-editenv");
    const result = await runProcess(
      (await exists(own)) ? own : "grub-editenv",
      [environmentFile, ...args],
      { env: childEnvironment(), timeoutMs: TIMEOUT_MS },
    );
    if (result.exitCode !== 0) throw new PullError("BOOT_LOADER_FAILED", describeFailure(result));
    return result;
  };
  const readVariable = async (name: string): Promise<string> => {
    if (!(await exists(environmentFile))) return "";
    const { stdout } = await editenv("list");
    const line = stdout.split("\n").find((it) => it.startsWith(`${name}=`));
    return line?.slice(name.length + 1) ?? "";
  };
  /**
   * Puts all of the boot directory's file system where GRUB reads it. Neither its tool nor the
   * installer waits for the disk, and GRUB does not replay a journal: a file that was only
   * flushed by itself may not be there for it.
   */
  const flush = async (): Promise<void> => {
    const result = await runProcess("sync", ["-f", join(places.boot, "grub")], {
      env: childEnvironment(),
      timeoutMs: FLUSH_TIMEOUT_MS,
    });
    if (result.exitCode !== 0) throw new PullError("BOOT_LOADER_FAILED", describeFailure(result));
  };
  const cancel = async (): Promise<void> => {
    if ((await readVariable("next_entry")) === "") return;
    await editenv("unset", "next_entry");
    await flush();
  };
  const menu = async (): Promise<GrubMenu> =>
    parseGrubMenu(await readFile(join(places.boot, "grub/grub.cfg"), "utf8"));

  return {
    async look() {
      return { name: "GRUB", cannotTry: await whyNot(places, await menu()) };
    },

    async tryOnce(trial) {
      const found = await menu();
      const why = await whyNot(places, found);
      if (why !== null) return why;
      await cancel();
      const saved = await readVariable("saved_entry");
      const chosen = chooseEntry(found, saved, trial);
      if ("cannot" in chosen) return chosen.cannot;
      // Without its menu, GRUB would forget the trial and start the default.
      await flush();
      await editenv("set", `next_entry=${chosen.path}`);
      await flush();
      const set = await readVariable("next_entry");
      return set === chosen.path
        ? null
        : `GRUB's environment did not keep next_entry: expected ${chosen.path}, found ${set}`;
    },

    async isTrialPending() {
      return (await readVariable("next_entry")) !== "";
    },

    cancelTrial: cancel,

    async kernelPlace() {
      return { directory: places.boot, removesFirst: false };
    },
  };
}

/** The entry to be tried, or why there is none that is safe to try. */
function chooseEntry(
  { items, defaultItem }: GrubMenu,
  saved: string,
  { toplevel, proven }: Trial,
): { readonly path: string } | { readonly cannot: string } {
  const usual = defaultItem === "${saved_entry}" ? saved : defaultItem;
  // If the default were another system, a dead kernel would not lead back to the proven one.
  if (initOf(items, usual) !== `${proven}/init`) {
    return { cannot: `GRUB does not have ${proven} as its default entry` };
  }
  const path = pathOf(items, `${toplevel}/init`);
  return path === null ? { cannot: `GRUB has no entry for ${toplevel}` } : { path };
}

async function whyNot(places: GrubPlaces, { triesOnce }: GrubMenu): Promise<string | null> {
  if (!triesOnce) return "its menu does not start next_entry once";
  const mount = await mountOf(
    join(places.boot, "grub"),
    places.mountInfo ?? "/proc/self/mountinfo",
  );
  if (!mount) return `the file system of ${places.boot}/grub is not known`;
  // It would start the system that is to be tried again and again.
  if (!WRITABLE.includes(mount.type)) return `GRUB cannot write to a file system of ${mount.type}`;
  const device = join(places.blockDevices ?? "/sys/dev/block", mount.device);
  for (const [kind, name] of [
    ["dm", "a mapped device (LVM, LUKS)"],
    ["md", "a RAID"],
  ] as const) {
    if (await exists(join(device, kind))) return `GRUB cannot write to ${name}`;
  }
  return null;
}

/** The mount that a directory is on (proc_pid_mountinfo(5)). */
async function mountOf(
  directory: string,
  mountInfo: string,
): Promise<{ type: string; device: string } | null> {
  const lines = (await ifMissing(readIfExists(mountInfo), null))?.split("\n") ?? [];
  let found: { point: string; type: string; device: string } | null = null;
  for (const line of lines) {
    const [, , device = "", , escapedPoint = ""] = line.split(" ");
    const type = /^.* - (\S+) /.exec(line)?.[1];
    const point = escapedPoint.replaceAll(/\\(\d{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    if (type === undefined || !point.startsWith("/")) continue;
    const isAround = point === "/" || directory === point || directory.startsWith(`${point}/`);
    // A later mount at the same place hides the earlier one.
    if (isAround && point.length >= (found?.point.length ?? 0)) found = { point, type, device };
  }
  return found;
}

import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import type { BootLoader, Trial } from "../../core/ports.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { describeFailure, runProcess, type ProcessResult } from "../process/subprocess.ts";
import { canSetVariables, readLoaderFeatures, readLoaderText } from "./efi-variables.ts";

/** `bootctl` reads a few files and variables; what takes longer hangs. */
const TIMEOUT_MS = 60_000;
const MAX_OUTPUT = 4 * 1024 * 1024;

/** The bit that says that the loader can start an entry once (EFI_LOADER_FEATURE_ENTRY_ONESHOT). */
const FEATURE_ONE_SHOT = 1n << 3n;

/** The entry of the next boot alone; the loader removes it before it starts the entry. */
const ONE_SHOT = "LoaderEntryOneShot";

/** What `bootctl list --json=short` says of an entry. */
const entriesSchema = z.array(
  z.looseObject({
    id: z.string(),
    options: z.string().nullish(),
    isDefault: z.boolean().nullish(),
  }),
);
type Entry = z.infer<typeof entriesSchema>[number];

/** Whether systemd-boot started this system; `variables` is the directory of EFI variables. */
export async function isSystemdBoot(variables: string): Promise<boolean> {
  const loader = await readLoaderText(variables, "LoaderInfo");
  return loader?.startsWith("systemd-boot") ?? false;
}

/** systemd-boot, by way of `bootctl`. */
export function systemdBoot(variables: string): BootLoader {
  return {
    async look() {
      return { name: "systemd-boot", cannotTry: await whyNot(variables) };
    },

    async tryOnce(trial) {
      const why = await whyNot(variables);
      if (why !== null) return why;
      if ((await readLoaderText(variables, ONE_SHOT)) !== null) await setOneShot("");
      const chosen = chooseEntry(await listEntries(), trial);
      if ("cannot" in chosen) return chosen.cannot;
      await setOneShot(chosen.id);
      const set = await readLoaderText(variables, ONE_SHOT);
      return set === chosen.id
        ? null
        : `the firmware did not keep ${ONE_SHOT}: expected ${chosen.id}, found ${set ?? "nothing"}`;
    },

    async isTrialPending() {
      return (await readLoaderText(variables, ONE_SHOT)) !== null;
    },

    async cancelTrial() {
      if ((await readLoaderText(variables, ONE_SHOT)) !== null) await setOneShot("");
    },

    async kernelPlace() {
      // XBOOTLDR if there is one, else the ESP.
      const result = await bootctl("--print-boot-path");
      const path = result.stdout.trim();
      if (result.exitCode !== 0 || !path.startsWith("/")) return null;
      return { directory: path, removesFirst: true };
    },
  };
}

async function whyNot(variables: string): Promise<string | null> {
  if (((await readLoaderFeatures(variables)) & FEATURE_ONE_SHOT) === 0n) {
    return "this systemd-boot is too old to start an entry once";
  }
  return (await canSetVariables(variables)) ? null : "EFI variables cannot be set here";
}

/** The entry of the system to be tried, or why there is none that is safe to try. */
function chooseEntry(
  entries: readonly Entry[],
  { toplevel, proven }: Trial,
): { readonly id: string } | { readonly cannot: string } {
  // If the default were another system, a dead kernel would not lead back to the proven one.
  if (!entries.some((entry) => entry.isDefault === true && starts(entry, proven))) {
    return { cannot: `systemd-boot does not have ${proven} as its default entry` };
  }
  const entry = entries.find((it) => it.isDefault !== true && starts(it, toplevel));
  return entry ? { id: entry.id } : { cannot: `systemd-boot has no entry for ${toplevel}` };
}

/** Whether an entry starts a system, by the kernel's command line. */
function starts({ options }: Entry, toplevel: string): boolean {
  return options?.split(/\s+/).includes(`init=${toplevel}/init`) ?? false;
}

async function listEntries(): Promise<readonly Entry[]> {
  const result = await bootctl("list", "--json=short");
  if (result.exitCode !== 0) throw new PullError("BOOT_LOADER_FAILED", describeFailure(result));
  try {
    return entriesSchema.parse(JSON.parse(result.stdout));
  } catch (error) {
    const message = "bootctl list: expected a JSON list of entries with an id";
    throw new PullError("BOOT_LOADER_FAILED", message, { cause: error });
  }
}

/** Sets the entry of the next boot; an empty one removes it. */
async function setOneShot(id: string): Promise<void> {
  const result = await bootctl("set-oneshot", id);
  if (result.exitCode !== 0) throw new PullError("BOOT_LOADER_FAILED", describeFailure(result));
}

function bootctl(...args: readonly string[]): Promise<ProcessResult> {
  return runProcess("bootctl", args, {
    env: childEnvironment(),
    timeoutMs: TIMEOUT_MS,
    maxOutput: MAX_OUTPUT,
  });
}

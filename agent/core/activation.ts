import type { Baseline } from "./machine.ts";
import type { ActivationMode } from "./manifest.ts";
import type { ActivationResult } from "./ports.ts";

/** Whether the mode makes the system the boot default, and so sets the system profile. */
export function setsProfile(mode: ActivationMode): boolean {
  return mode === "switch" || mode === "boot";
}

/** Whether the system runs once the mode is through. */
export function changesRunningSystem(mode: ActivationMode): boolean {
  return mode === "switch" || mode === "test";
}

export type Verdict =
  | { readonly kind: "activated"; readonly rebootNeeded: boolean }
  /** Another one runs; nothing was done. */
  | { readonly kind: "locked"; readonly message: string }
  | { readonly kind: "failed"; readonly message: string };

/** Exit codes of switch-to-configuration-ng, in words. */
const EXIT_MEANINGS: Record<number, string> = {
  1: "a check, an inhibitor or the boot loader failed",
  2: "the activation script failed",
  4: "a unit failed to start, stop or reload",
  101: "it crashed",
};

const LOCKED = 11;
const REBOOT_NEEDED = 100;

/** Reads the result of switch-to-configuration. */
export function judgeActivation(result: ActivationResult): Verdict {
  if (result.timedOut) return { kind: "failed", message: "it did not finish in its time limit" };
  if (result.exitCode === 0) return { kind: "activated", rebootNeeded: false };
  if (result.exitCode === REBOOT_NEEDED) return { kind: "activated", rebootNeeded: true };
  if (result.exitCode === LOCKED) {
    return { kind: "locked", message: "another switch-to-configuration holds the lock" };
  }
  if (result.exitCode === null) return { kind: "failed", message: "a signal ended it" };
  const meaning = EXIT_MEANINGS[result.exitCode];
  return {
    kind: "failed",
    message: `it ended with exit code ${result.exitCode}${meaning ? `: ${meaning}` : ""}`,
  };
}

/** What restores the system that was there before an activation. */
export interface RollbackPlan {
  /** Whether the profile goes back to the recorded generation. */
  readonly restoreProfile: boolean;
  /** Runs of the recorded systems' own switch-to-configuration, in order. */
  readonly runs: readonly { readonly toplevel: string; readonly mode: ActivationMode }[];
}

/**
 * Plans the way back from an activation in `mode`. The recorded boot default and the
 * recorded running system differ on a host that had a boot pending; each is restored.
 */
export function planRollback(mode: ActivationMode, baseline: Baseline): RollbackPlan {
  const { profile } = baseline;
  const running = baseline.running ?? profile;
  const runs: { toplevel: string; mode: ActivationMode }[] = [];
  if (mode === "switch" && running !== null && running === profile) {
    runs.push({ toplevel: running, mode: "switch" });
  } else {
    if (setsProfile(mode) && profile !== null) runs.push({ toplevel: profile, mode: "boot" });
    if (changesRunningSystem(mode) && running !== null) {
      runs.push({ toplevel: running, mode: "test" });
    }
  }
  return { restoreProfile: setsProfile(mode), runs };
}

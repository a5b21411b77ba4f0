import type { ActivationMode } from "../formats/manifest.ts";
import type { ActivationResult } from "../ports.ts";
import type { Baseline } from "./states.ts";

/** Whether the mode makes the system the boot default, and so sets the system profile. */
export function setsProfile(mode: ActivationMode): boolean {
  return mode === "switch" || mode === "boot";
}

/** Whether the system runs once the mode is through. */
export function changesRunningSystem(mode: ActivationMode): boolean {
  return mode === "switch" || mode === "test";
}

/**
 * What is run first: `switch` is proven as `test` before it becomes the boot default, so
 * that a power cut in between boots the old system. `boot` changes nothing that could be
 * proven before the boot.
 */
export function provingMode(mode: ActivationMode): "test" | "dry-activate" | null {
  switch (mode) {
    case "switch":
    case "test":
      return "test";
    case "dry-activate":
      return "dry-activate";
    case "boot":
      return null;
    default:
      return mode satisfies never;
  }
}

/** What the result of switch-to-configuration means. */
export type Verdict =
  | { readonly kind: "activated" }
  /** Activated, but units failed; whether new ones did is for the health gate to say. */
  | { readonly kind: "unitsFailed"; readonly message: string }
  /** It refuses to do it without a reboot. */
  | { readonly kind: "rebootNeeded" }
  /** Another one runs; nothing was done. */
  | { readonly kind: "locked" }
  /** It was ended from outside; how far it came is not known. */
  | { readonly kind: "interrupted"; readonly message: string }
  | { readonly kind: "failed"; readonly message: string };

/** Exit codes of switch-to-configuration-ng, in words. */
const EXIT_MEANINGS: Record<number, string> = {
  1: "a check, an inhibitor or the boot loader failed",
  2: "the activation script failed",
  4: "a unit failed to start, stop or reload",
  101: "it crashed",
};

/** Reads the result of switch-to-configuration. */
export function judgeActivation(result: ActivationResult): Verdict {
  if (result.timedOut) return { kind: "failed", message: "it did not finish in its time limit" };
  switch (result.exitCode) {
    case 0:
      return { kind: "activated" };
    case 4:
      return { kind: "unitsFailed", message: "a unit failed to start, stop or reload" };
    case 11:
      return { kind: "locked" };
    case 100:
      return { kind: "rebootNeeded" };
    case null:
      return { kind: "interrupted", message: "a signal ended it" };
    default: {
      const meaning = EXIT_MEANINGS[result.exitCode];
      return {
        kind: "failed",
        message: `it ended with exit code ${result.exitCode}${meaning ? `: ${meaning}` : ""}`,
      };
    }
  }
}

/** Says how a run failed that had to succeed; null if it succeeded. */
export function failureText(verdict: Verdict): string | null {
  switch (verdict.kind) {
    case "activated":
    case "rebootNeeded":
      return null;
    case "locked":
      return "another switch-to-configuration holds the lock";
    case "unitsFailed":
    case "interrupted":
    case "failed":
      return verdict.message;
    default:
      return verdict satisfies never;
  }
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

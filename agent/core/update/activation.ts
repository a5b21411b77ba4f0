import { ACTIVATION_MODES, type ActivationMode, type Release } from "../formats/manifest.ts";
import type { Baseline } from "./states.ts";

/** The mode; `switch` for another version's, since that has the most to undo. */
function asKnown(recorded: Release["mode"]): ActivationMode {
  return ACTIVATION_MODES.find((mode) => mode === recorded) ?? "switch";
}

/** Whether the mode makes the system the boot default, and so sets the system profile. */
export function setsProfile(recorded: Release["mode"]): boolean {
  const mode = asKnown(recorded);
  return mode === "switch" || mode === "boot";
}

/** Whether the system runs once the mode is through. */
export function changesRunningSystem(recorded: Release["mode"]): boolean {
  const mode = asKnown(recorded);
  return mode === "switch" || mode === "test";
}

/**
 * What is run first: `switch` is proven as `test` before it becomes the boot default, so
 * that a power cut in between boots the old system. `boot` changes nothing that could be
 * proven before the boot.
 */
export function provingMode(recorded: Release["mode"]): "test" | "dry-activate" | null {
  const mode = asKnown(recorded);
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
export function planRollback(recorded: Release["mode"], baseline: Baseline): RollbackPlan {
  const mode = asKnown(recorded);
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

/** What of a host is not the agent's to restore, since somebody else changed it. */
export interface Spared {
  readonly profile: boolean;
  readonly running: boolean;
}

/** The way back without what would undo somebody else's change. */
export function spareInRollback(plan: RollbackPlan, spared: Spared): RollbackPlan {
  const runs = plan.runs.flatMap(({ toplevel, mode }): RollbackPlan["runs"] => {
    const boots = setsProfile(mode) && !spared.profile;
    const switches = changesRunningSystem(mode) && !spared.running;
    if (boots) return [{ toplevel, mode: switches ? "switch" : "boot" }];
    return switches ? [{ toplevel, mode: "test" }] : [];
  });
  return { restoreProfile: plan.restoreProfile && !spared.profile, runs };
}

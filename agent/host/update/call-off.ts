import type { PullError } from "../../core/errors.ts";
import { setsProfile } from "../../core/update/activation.ts";
import type { PendingReboot } from "../../core/update/record.ts";
import { isPastTheLine } from "../../core/update/states.ts";
import type { Finding } from "../poll/finding.ts";
import { observe } from "../observe.ts";
import { whyTaken } from "./pending-boot.ts";
import { runSteps, type Pass } from "./run.ts";
import type { StepTools } from "./steps/steps.ts";

/** What calling a boot off came to. */
export interface CalledOff {
  /** Why the loader, the profile or the boot default could not be set back yet; null if they were. */
  readonly error: PullError | null;
}

/**
 * Calls off a boot that leads to a release which is no longer this host's, or that a person took
 * away: the boot loader, the profile and the boot default go back to the proven system. Nothing is
 * denied, and what runs is left as it is. Gives null if no such boot is pending. Throws what `runSteps` throws.
 */
export async function callOffBoot(
  finding: Pick<Finding, "release" | "decision" | "error">,
  pass: Pass<StepTools>,
): Promise<CalledOff | null> {
  const { journal, tools } = pass;
  const { pendingReboot, state } = journal.record;
  if (pendingReboot === null || pendingReboot.wayBack || isPastTheLine(state)) return null;
  const { sequence, toplevel } = pendingReboot.release;
  // A live switch may have proven it before.
  const runs = (await observe(tools, toplevel)).running === toplevel;
  const taken = await whyTaken(pendingReboot, tools);
  const why = taken ?? whyNot(pendingReboot, runs, finding);
  if (why === null) return null;
  const message = `the boot for release ${sequence} is called off: ${why}`;
  tools.log.warn(message, { code: "BOOT_CALLED_OFF" });
  const reason = { code: "BOOT_CALLED_OFF", message } as const;
  await journal.happened({ type: "BootCalledOff", reason, runs });
  return { error: await runSteps(pass) };
}

/** Why a boot that is pending is not wanted any more, in words; null if it is, or may be. */
export function whyNot(
  { release: pending, trial = false }: PendingReboot,
  runs: boolean,
  { release, decision, error }: Pick<Finding, "release" | "decision" | "error">,
): string | null {
  if (!release || !decision) return error?.code === "HOST_NOT_IN_RELEASE" ? error.message : null;
  // Until its turn comes, the one before it is this host's.
  if (decision.kind === "waiting") return null;
  // By a mode that leaves the boot default alone, it is not to become that.
  if (release.toplevel === pending.toplevel && setsProfile(release.mode)) return null;
  // It is committed, and what the newer one goes back to if that fails.
  if (runs && !trial) return null;
  return `release ${release.sequence} takes its place`;
}

import { toPullError } from "../../core/errors.ts";
import type { AgentRecord, PendingReboot } from "../../core/update/record.ts";
import type { AgentTools } from "../agent-tools.ts";
import { ROOT } from "./roots.ts";

/** What may still need something. */
type Remaining = Pick<AgentRecord, "pendingReboot" | "unfinishedWayBack" | "unfinishedRevert">;

/**
 * Deletes the generations that the agent made for a system that did not prove itself, so that no
 * later way back ends there. Generations of it from before the update stay. A failure is only logged:
 * it must not hold a way back up. Throws INTERRUPTED.
 */
export async function forgetUnproven(
  { release, baseline }: Pick<PendingReboot, "release" | "baseline">,
  { store, log }: Pick<AgentTools, "store" | "log">,
): Promise<void> {
  if (baseline.generation === null) return;
  try {
    await store.forgetNewer(release.toplevel, baseline.generation);
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code === "INTERRUPTED") throw error;
    log.warn(error.message, { code: error.code });
  }
}

/** What removing preparations takes. */
export type PreparationTools = Pick<
  AgentTools,
  "services" | "roots" | "deadline" | "bootLoader" | "store" | "log"
>;

/** Removes what an activation needs for as long as it runs, and its boot if one is pending. */
export async function removePreparations(
  { pendingReboot, unfinishedWayBack, unfinishedRevert }: Remaining,
  { services, roots, deadline, bootLoader, store, log }: PreparationTools,
): Promise<void> {
  await services.disarmDeadline();
  if (!unfinishedRevert) await roots.release(ROOT.chosen);
  if (!unfinishedWayBack) {
    await roots.release(ROOT.previousProfile);
    await roots.release(ROOT.previousRunning);
  }
  if (pendingReboot === null || pendingReboot.wayBack) {
    await deadline.disarmForBoot();
    await roots.release(ROOT.agent);
  }
  if (!pendingReboot?.trial) {
    const tried = await roots.held(ROOT.trial);
    // No later way back may end at a system that did not prove itself.
    if (tried !== null) await store.forgetNewer(tried);
    await roots.release(ROOT.trial);
    // What is left of an earlier one must not start a system that nobody waits for.
    await bootLoader.cancelTrial().catch((thrown: unknown) => {
      const { code, message } = toPullError(thrown);
      log.warn(message, { code });
    });
  }
}

/** What removing all leftovers takes. */
export type LeftoverTools = PreparationTools & Pick<AgentTools, "closures">;

/** Removes what is of no use once nothing is under way: preparations and what was fetched. */
export async function removeLeftovers(remaining: Remaining, tools: LeftoverTools): Promise<void> {
  await removePreparations(remaining, tools);
  await tools.roots.release(ROOT.pending);
  await tools.closures.abandon();
}

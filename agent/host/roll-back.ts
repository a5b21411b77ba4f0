import { PullError } from "../core/errors.ts";
import { denialOf, type AgentRecord } from "../core/update/record.ts";
import type { KnownReason } from "../core/update/states.ts";
import type { AgentTools } from "./agent-tools.ts";
import { withUpdateLock } from "./update-lock.ts";
import { Journal, type JournalTools } from "./update/journal.ts";
import { finishBegun, owesWayBack, retryWayBack } from "./update/resume.ts";
import { ROOT } from "./update/roots.ts";
import { runSteps } from "./update/run.ts";
import type { StepTools } from "./update/steps/steps.ts";

/** What a rollback takes. */
export type RollbackTools = StepTools & JournalTools & Pick<AgentTools, "locks">;

/** A generation of the system profile. */
interface Generation {
  readonly toplevel: string;
  /** Null for a system that the profile has no generation of any more. */
  readonly generation: number | null;
}

/**
 * Goes back to the profile's previous generation (or `generation`) and denies the system that
 * is left, so that the next poll does not bring it back. Gives where the host is now. Throws
 * NOTHING_TO_ROLL_BACK, NOT_A_SYSTEM, PROFILE_FAILED, ROLLBACK_FAILED, AGENT_BUSY, …
 */
export async function rollBackByHand(
  tools: RollbackTools,
  generation: number | null,
): Promise<Generation> {
  return withUpdateLock(tools, async () => {
    const journal = new Journal(await tools.state.load(), tools);
    const pass = { journal, tools, signal: undefined };
    const unfinished = await finishBegun(pass);
    // If one generation does not come up, a person may choose another.
    if (unfinished && journal.record.state.name !== "Reverting") throw unfinished;
    // A way back that is owed leads where the person wants to go. If it fails, another may not.
    const isOwed = owesWayBack(journal.record);
    await retryWayBack(pass);
    if (isOwed && !owesWayBack(journal.record) && generation === null) {
      const back = await tools.store.findGeneration(await tools.store.profileGeneration());
      if (back !== null) return back;
    }
    const { pendingReboot } = journal.record;
    const current = await tools.store.findGeneration(await tools.store.profileGeneration());
    // What waits for its trial is left for the system that is still the boot default.
    const stays = pendingReboot?.trial && generation === null ? current : null;
    const target = stays ?? (await findTarget(journal.record, generation, tools));
    const from = stays ? pendingReboot?.release.toplevel : await tools.store.profileToplevel();
    const message = `rolled back by hand from ${from ?? "no system"} to ${target.toplevel}`;
    const reason: KnownReason = { code: "RELEASE_DENIED", message };
    await tools.roots.hold(ROOT.chosen, target.toplevel);
    await journal.happened({ type: "RevertBegun", from: from ?? null, target, reason });
    const error = await runSteps(pass);
    if (error) throw error;
    return { ...target, generation: await tools.store.profileGeneration() };
  });
}

/**
 * The generation to go back to. A system that failed here, or that a person left, is gone to only
 * if its number is asked for. Throws NOTHING_TO_ROLL_BACK, NOT_A_SYSTEM.
 */
async function findTarget(
  record: AgentRecord,
  generation: number | null,
  tools: Pick<AgentTools, "store" | "activator" | "roots">,
): Promise<Generation> {
  const { store, activator } = tools;
  const isDenied = (toplevel: string): boolean => denialOf(record, { toplevel }) !== undefined;
  const found = await store.findGeneration(generation, isDenied);
  const target = found ?? (await heldBack(generation, tools));
  if (!target) {
    throw new PullError(
      "NOTHING_TO_ROLL_BACK",
      generation === null
        ? "the system profile has no generation before the current one"
        : `the system profile has no generation ${generation}`,
    );
  }
  if (target.generation !== null && target.generation === (await store.profileGeneration())) {
    throw new PullError(
      "NOTHING_TO_ROLL_BACK",
      `generation ${target.generation} is the current one`,
    );
  }
  if (!(await activator.canActivate(target.toplevel))) {
    throw new PullError("NOT_A_SYSTEM", `${target.toplevel} has no bin/switch-to-configuration`);
  }
  return target;
}

/**
 * The system before this one, held by the agent's own root: generations may all have been
 * deleted. Null if a certain generation is asked for, or no other system is held.
 */
async function heldBack(
  generation: number | null,
  { store, roots }: Pick<AgentTools, "store" | "roots">,
): Promise<Generation | null> {
  if (generation !== null) return null;
  const toplevel = await roots.held(ROOT.previous);
  if (toplevel === null || toplevel === (await store.profileToplevel())) return null;
  return (await store.invalidPaths([toplevel])).length > 0 ? null : { toplevel, generation: null };
}

import type { PullError } from "../../core/errors.ts";
import { isExpected } from "../../core/update/machine.ts";
import { isPastTheLine, type State } from "../../core/update/states.ts";
import type { AgentTools } from "../agent-tools.ts";
import { changedByHand } from "./hand-made.ts";
import { interrupted } from "./happening.ts";
import { ROOT } from "./roots.ts";
import { runSteps, type Pass } from "./run.ts";
import type { StepTools } from "./steps/steps.ts";

/** If agents ended this often in one state, what they did there may have ended them. */
const MAX_RESTARTS = 10;

/** After this many failures in a row of a way back, another release may take its place. */
const MAX_ROLLBACKS = 3;

/**
 * Finishes what an earlier agent left half done, since the host may be between two systems.
 * Gives the error if it is still not done.
 */
export async function finishBegun(pass: Pass<StepTools>): Promise<PullError | null> {
  const { journal, tools } = pass;
  await noticeReboot(pass);
  const { state } = journal.record;
  if (!isPastTheLine(state)) {
    // A rollback by hand that was killed before it was recorded holds the system that it chose.
    await tools.roots.release(ROOT.chosen);
    return null;
  }
  tools.log.warn(`going on where an earlier run stopped, in ${state.name}`);
  if (isExpected(state.name, "AgentRestarted")) await journal.happened({ type: "AgentRestarted" });
  const restarts = "restarts" in state ? state.restarts : 0;
  const isLoop =
    restarts >= MAX_RESTARTS && (state.name === "Activating" || state.name === "Verifying");
  if (isLoop && (await changedByHand(state, journal.record, tools)) === null) {
    const message = `the agent was ended ${restarts} times in ${state.name}`;
    // A person may have restarted it, or the power failed as often.
    await journal.happened(interrupted("RESTART_LOOP", message));
  }
  const error = await runSteps(pass);
  if (isPastTheLine(journal.record.state)) return error;
  // A power cut may have started a trial before it was recorded as armed: it is judged before
  // any other release is looked at.
  await noticeReboot(pass);
  if (!isPastTheLine(journal.record.state)) return null;
  const again = await runSteps(pass);
  return isPastTheLine(journal.record.state) ? again : null;
}

/** Whether the way back failed so often that another release is the better hope. */
export function isBarred(state: State): boolean {
  return (
    (state.name === "RollingBack" && state.rollbackAttempts >= MAX_ROLLBACKS) ||
    (state.name === "Reverting" && state.failures >= MAX_ROLLBACKS)
  );
}

/** After the reboot that a system was waiting for, it has to prove itself. */
export async function noticeReboot({
  journal,
  tools,
}: Pass<Pick<AgentTools, "services">>): Promise<void> {
  const { pendingReboot, state } = journal.record;
  if (pendingReboot === null || isPastTheLine(state)) return;
  const bootId = await tools.services.bootId();
  if (bootId !== pendingReboot.bootId) await journal.happened({ type: "RebootNoticed", bootId });
}

import { PullError, toPullError } from "../../core/errors.ts";
import { isExpected } from "../../core/update/machine.ts";
import {
  isPastTheLine,
  type Baseline,
  type State,
  type StateOf,
} from "../../core/update/states.ts";
import type { AgentRecord } from "../../core/update/record.ts";
import { failureOf } from "../../core/update/switch-verdict.ts";
import type { AgentTools } from "../agent-tools.ts";
import { observe } from "../observe.ts";
import { changedByHand } from "./hand-made.ts";
import { interrupted } from "./happening.ts";
import { ROOT } from "./roots.ts";
import { runOwedWayBack, runSteps, type Pass } from "./run.ts";
import type { StepTools } from "./steps/steps.ts";
import { runSwitch, type SwitchTools } from "./switch-run.ts";

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
    if (!journal.record.unfinishedRevert) await tools.roots.release(ROOT.chosen);
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
  const restless = journal.record.state;
  if (restless.name === "RollingBack" && isPassedOver(restless)) return endedAgents(restless);
  const error = await runSteps(pass);
  if (isPastTheLine(journal.record.state)) return error;
  // A power cut may have started a trial before it was recorded as armed: it is judged before
  // any other release is looked at.
  await noticeReboot(pass);
  if (!isPastTheLine(journal.record.state)) return null;
  const again = await runSteps(pass);
  return isPastTheLine(journal.record.state) ? again : null;
}

/**
 * Tries a way back again that another release took the place of: that release may fail, or never
 * come, and no rule delays the way back. Gives why the host still owes it; null if it does not.
 */
export async function retryWayBack(pass: Pass<StepTools>): Promise<PullError | null> {
  const { journal } = pass;
  if (!owesWayBack(journal.record) || isPastTheLine(journal.record.state)) return null;
  // Counted first: what it does may end this agent.
  if (journal.record.unfinishedWayBack) await journal.happened({ type: "AgentRestarted" });
  const { unfinishedWayBack: owed } = journal.record;
  return owed && isPassedOver(owed) ? endedAgents(owed) : runOwedWayBack(pass);
}

/** Whether a way back is still owed that another release took the place of. */
export function owesWayBack({ unfinishedWayBack, unfinishedRevert }: AgentRecord): boolean {
  return unfinishedWayBack !== undefined || unfinishedRevert !== undefined;
}

/** How often a way back ended its agent: every other try is recorded to have failed. */
function agentsEnded({ restarts, rollbackAttempts }: StateOf<"RollingBack">): number {
  return Math.max(0, restarts - rollbackAttempts);
}

/**
 * Whether a way back is left alone this time: it ended so many agents that only every other one
 * tries it, so that the ones between reach another release.
 */
function isPassedOver(state: StateOf<"RollingBack">): boolean {
  const ended = agentsEnded(state);
  return ended >= MAX_RESTARTS && ended % 2 === 0;
}

function endedAgents(state: StateOf<"RollingBack">): PullError {
  const { release } = state;
  const message = `the way back from release ${release.sequence} ended its agent ${agentsEnded(state)} times`;
  return new PullError("ROLLBACK_FAILED", message);
}

/** Whether the way back failed so often that another release is the better hope. */
export function isBarred(state: State): boolean {
  return (
    (state.name === "RollingBack" &&
      (state.rollbackAttempts >= MAX_ROLLBACKS || agentsEnded(state) >= MAX_RESTARTS)) ||
    (state.name === "Reverting" && state.failures >= MAX_ROLLBACKS)
  );
}

/** What noticing a reboot takes. */
export type NoticeTools = SwitchTools & Pick<AgentTools, "services" | "systems" | "bootLoader">;

/**
 * After the reboot that a system was waiting for, it has to prove itself. A way back is complete
 * with its boot, unless that started the system again that failed.
 */
export async function noticeReboot(pass: Pass<NoticeTools>): Promise<void> {
  const { journal, tools } = pass;
  const { pendingReboot, state } = journal.record;
  if (pendingReboot === null || isPastTheLine(state)) return;
  const bootId = await tools.services.bootId();
  if (bootId === pendingReboot.bootId) return;
  const { wayBack, release, baseline } = pendingReboot;
  const { booted, running } = await observe(tools, release.toplevel);
  if (!wayBack || booted !== release.toplevel || running !== release.toplevel) {
    return journal.happened({ type: "RebootNoticed", bootId });
  }
  const message = `the boot that was to lead back from release ${release.sequence} started ${booted} again`;
  tools.log.error(message, { code: "REBOOT_LOOP" });
  await renewBootDefault(baseline, pass);
  return journal.happened({ type: "WayBackMissed", bootId, message });
}

/** Has the next boot start the recorded system, once more. What fails in this is only said. */
async function renewBootDefault(
  { profile }: Baseline,
  { tools, signal }: Pass<NoticeTools>,
): Promise<void> {
  try {
    await tools.bootLoader.cancelTrial();
    // Another profile is somebody else's choice.
    if (profile === null || (await tools.store.profileToplevel()) !== profile) return;
    const order = { toplevel: profile, ranBefore: null, knownSnippets: [], unchecked: true };
    const { verdict } = await runSwitch({ ...order, action: "boot" }, signal, tools);
    const failure = failureOf(verdict);
    if (failure !== null) tools.log.error(`${profile} boot: ${failure}`);
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    if (code === "INTERRUPTED") throw thrown;
    tools.log.error(message, { code });
  }
}

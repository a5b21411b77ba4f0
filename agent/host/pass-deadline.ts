import type { AgentRecord } from "../core/update/record.ts";
import { isPastTheLine } from "../core/update/states.ts";
import type { AgentTools } from "./agent-tools.ts";
import { withUpdateLock } from "./update-lock.ts";
import { changedByHand } from "./update/hand-made.ts";
import { interrupted } from "./update/happening.ts";
import { Journal, type JournalTools } from "./update/journal.ts";
import { rebootIfDue, type RebootTools } from "./update/reboot.ts";
import { noticeReboot } from "./update/resume.ts";
import { runSteps, type Pass } from "./update/run.ts";
import type { StepTools } from "./update/steps/steps.ts";

/** What passing the deadline takes. */
export type PassDeadlineTools = StepTools & JournalTools & RebootTools & Pick<AgentTools, "locks">;

/**
 * What the deadline timer runs: takes over from the agent, whatever became of it, and rolls the
 * release back unless it is committed. Throws ROLLBACK_FAILED, …
 */
export async function passDeadline(tools: PassDeadlineTools, toplevel: string): Promise<void> {
  const { services, state, log } = tools;
  if (!(await isUnproven(toplevel, await state.load(), tools))) return;
  log.error("the deadline passed without a commit; taking over from the agent", {
    code: "DEADLINE_PASSED",
  });
  await services.stopAgent();
  try {
    await withUpdateLock(tools, async () => {
      const pass = { journal: new Journal(await state.load(), tools), tools, signal: undefined };
      await rollBackUnproven(toplevel, pass);
      // There may be no agent that would.
      const error = await rebootIfDue(pass);
      if (error) log.error(error.message, { code: error.code });
    });
  } finally {
    await services.startAgent();
  }
}

/** Whether a system is being activated or was booted, and is not committed yet. */
async function isUnproven(
  toplevel: string,
  { state, pendingReboot }: AgentRecord,
  { services }: Pick<AgentTools, "services">,
): Promise<boolean> {
  if (isPastTheLine(state)) return "release" in state && state.release.toplevel === toplevel;
  return (
    pendingReboot?.release.toplevel === toplevel &&
    !pendingReboot.wayBack &&
    pendingReboot.bootId !== (await services.bootId())
  );
}

/** Rolls back a system that is not committed yet. */
async function rollBackUnproven(toplevel: string, pass: Pass<PassDeadlineTools>): Promise<void> {
  const { journal, tools } = pass;
  if (!(await isUnproven(toplevel, journal.record, tools))) return;
  await noticeReboot(pass);
  const { state } = journal.record;
  const { name } = state;
  const isLeft = (await changedByHand(state, journal.record, tools)) !== null;
  if (!isLeft && (name === "Staged" || name === "Activating" || name === "Verifying")) {
    const message = `still ${name} when the deadline passed`;
    await journal.happened(interrupted("DEADLINE_PASSED", message));
  }
  const error = await runSteps(pass);
  if (error && isPastTheLine(journal.record.state)) throw error;
}

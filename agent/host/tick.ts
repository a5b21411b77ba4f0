import { PullError, toPullError } from "../core/errors.ts";
import type { AgentRecord } from "../core/update/record.ts";
import { isPastTheLine } from "../core/update/states.ts";
import type { Insistence } from "../core/update/plan.ts";
import type { AgentTools } from "./agent-tools.ts";
import { restartHold } from "./operator-commands.ts";
import { findRelease, type FindTools } from "./poll/find-release.ts";
import type { TickOutcome } from "./poll/finding.ts";
import { ArchiveVerdicts, keepPollReport } from "./poll/poll-report.ts";
import { withUpdateLock } from "./update-lock.ts";
import { follow, type FollowTools } from "./update/follow.ts";
import { Journal, type JournalTools } from "./update/journal.ts";
import { endReboot, rebootIfDue, releaseRebootSlot, type RebootTools } from "./update/reboot.ts";
import { finishBegun, isBarred, owesWayBack, retryWayBack } from "./update/resume.ts";
import type { Pass } from "./update/run.ts";

/** What a tick takes. */
export type TickTools = FindTools &
  FollowTools &
  JournalTools &
  RebootTools &
  Pick<AgentTools, "locks" | "files">;

/** How a tick is meant. */
export interface TickOptions {
  readonly insistence: Insistence;
  /** Whether a person accepts that the host forgot which releases it had accepted. */
  readonly acceptStateLoss?: boolean;
  /** Ends the tick at the next safe point. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * One round: finishes what was begun, polls, decides and, if there is something to do, does it.
 * Throws AGENT_BUSY if another process does so right now, and the errors of the state file;
 * everything else is in the outcome.
 */
export async function tick(tools: TickTools, options: TickOptions): Promise<TickOutcome> {
  return withUpdateLock(tools, async () => {
    const { state, successor, clock } = tools;
    await successor.look();
    const record = await state.load({ acceptLoss: options.acceptStateLoss ?? false });
    await state.mend(record, clock.now());
    await restartHold(tools);
    try {
      return await updateOnce(record, tools, options);
    } finally {
      await tools.cache.save();
    }
  });
}

/** Polls and does what that asks for. If a stray error ends it, that is the outcome's error. */
async function findAndFollow(
  insistence: Insistence,
  pass: Pass<FindTools & FollowTools>,
): Promise<TickOutcome> {
  const { journal, tools, signal } = pass;
  try {
    const finding = await findRelease(journal.record, { insistence, signal }, tools);
    return await follow(finding, pass);
  } catch (thrown) {
    const error = endedBy(signal, toPullError(thrown));
    if (error === null || error.code === "INTERRUPTED") throw thrown;
    const nothing = { verdicts: [], release: null, decision: null };
    return { ...nothing, error, record: journal.record, updated: false };
  }
}

/** The error behind an interruption, if the signal's reason is one, and else `error` itself. */
function endedBy(signal: AbortSignal | undefined, error: PullError | null): PullError | null {
  const reason: unknown = signal?.reason;
  return error?.code === "INTERRUPTED" && reason instanceof PullError ? reason : error;
}

async function updateOnce(
  record: AgentRecord,
  tools: TickTools,
  { insistence, signal }: TickOptions,
): Promise<TickOutcome> {
  const journal = new Journal(record, tools);
  const archives = new ArchiveVerdicts(tools.clock);
  const pass = { journal, tools: { ...tools, onArchiveRead: archives.hear }, signal };
  const unfinished = (await finishBegun(pass)) ?? (await retryWayBack(pass));
  if (unfinished) {
    const { state } = journal.record;
    if (unfinished.code === "INTERRUPTED" || (isPastTheLine(state) && !isBarred(state))) {
      const nothing = { verdicts: [], release: null, decision: null };
      return { ...nothing, error: unfinished, record: journal.record, updated: false };
    }
    tools.log.error(`${unfinished.message}; looking for a release that works instead`, {
      code: unfinished.code,
    });
  }
  const followed = await findAndFollow(insistence, pass);
  await releaseRebootSlot(pass);
  const isBetween = isPastTheLine(journal.record.state) || owesWayBack(journal.record);
  const stuck = isBetween ? unfinished : null;
  await endReboot(pass);
  const notRebooted = await rebootIfDue(pass);
  const error = endedBy(signal, followed.error ?? stuck ?? notRebooted);
  const outcome = { ...followed, record: journal.record, error };
  await keepPollReport(outcome, archives, tools);
  return outcome;
}

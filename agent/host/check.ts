import { toPullError } from "../core/errors.ts";
import type { BootLoaderFacts, FetchPreview } from "../core/ports.ts";
import type { HoldRead } from "../core/schedule/hold.ts";
import { driftOf, type Drift } from "../core/update/drift.ts";
import type { AgentRecord } from "../core/update/record.ts";
import { isPastTheLine, type Reason } from "../core/update/states.ts";
import type { AgentTools } from "./agent-tools.ts";
import { currentHold } from "./current-hold.ts";
import { observe } from "./observe.ts";
import { findRelease, type FindTools, type Occasion } from "./poll/find-release.ts";
import type { Finding } from "./poll/finding.ts";
import { readActivity, type Activity, type ActivityTools } from "./report/activity.ts";
import { alarmsOf, bootLoaderFacts } from "./report/host-status.ts";
import { whyNot } from "./update/call-off.ts";

/** What a tick would do, and what else stands in its way. */
export interface CheckOutcome extends Finding {
  readonly record: AgentRecord;
  /** Null if nothing would be brought in. */
  readonly preview: FetchPreview | null;
  readonly drift: Drift | null;
  readonly hold: HoldRead;
  readonly bootLoader: BootLoaderFacts;
  /** Why the boot that is pending would be called off; null if none is, or it still leads to its release. */
  readonly calledOff: string | null;
  /** What a person should look at, as in `status`. */
  readonly alarms: readonly Reason[];
  /** Which processes of the agent run. */
  readonly activity: Activity;
}

/** What a check takes. */
export type CheckTools = FindTools &
  ActivityTools &
  Pick<AgentTools, "state" | "closures" | "bootLoader" | "history">;

/** What a tick would do now, without doing or writing anything. Throws the errors of the state file. */
export async function check(tools: CheckTools, occasion: Occasion): Promise<CheckOutcome> {
  const { state, closures } = tools;
  const record = await state.load();
  const { alarms: recalled } = await state.recall();
  const finding = await findRelease(record, occasion, tools);
  const drift = isPastTheLine(record.state)
    ? null
    : driftOf(record, await observe(tools, record.committed?.toplevel));
  const bootLoader = await bootLoaderFacts(tools);
  const calledOff = await whyCalledOff(record, finding, tools);
  const hold = await currentHold(tools);
  const alarms = await alarmsOf(recalled, hold, tools);
  const activity = await readActivity(record, tools);
  const outcome = { ...finding, record, drift, hold, bootLoader, calledOff, alarms, activity };
  if (finding.decision?.kind !== "update" || !finding.release) {
    return { ...outcome, preview: null };
  }
  try {
    const preview = await closures.preview(finding.release, occasion.signal);
    return { ...outcome, preview };
  } catch (error) {
    return { ...outcome, preview: null, error: toPullError(error) };
  }
}

/** Why a tick would call the pending boot off. */
async function whyCalledOff(
  { pendingReboot, state }: AgentRecord,
  finding: Finding,
  tools: CheckTools,
): Promise<string | null> {
  if (pendingReboot === null || pendingReboot.wayBack || isPastTheLine(state)) return null;
  const { toplevel } = pendingReboot.release;
  const runs = (await observe(tools, toplevel)).running === toplevel;
  return whyNot(pendingReboot, runs, finding);
}

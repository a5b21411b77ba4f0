import { toPullError } from "../core/errors.ts";
import type { BootLoaderFacts, FetchPreview } from "../core/ports.ts";
import type { HoldRead } from "../core/schedule/hold.ts";
import { driftOf, type Drift } from "../core/update/drift.ts";
import type { AgentRecord } from "../core/update/record.ts";
import { isPastTheLine } from "../core/update/states.ts";
import type { AgentTools } from "./agent-tools.ts";
import { currentHold } from "./current-hold.ts";
import { observe } from "./observe.ts";
import { findRelease, type FindTools, type Occasion } from "./poll/find-release.ts";
import type { Finding } from "./poll/finding.ts";
import { bootLoaderFacts } from "./report/host-status.ts";

/** What a tick would do, and what else stands in its way. */
export interface CheckOutcome extends Finding {
  readonly record: AgentRecord;
  /** Null if nothing would be brought in. */
  readonly preview: FetchPreview | null;
  readonly drift: Drift | null;
  readonly hold: HoldRead;
  readonly bootLoader: BootLoaderFacts;
}

/** What a check takes. */
export type CheckTools = FindTools & Pick<AgentTools, "state" | "closures" | "bootLoader">;

/** What a tick would do now, without doing or writing anything. Throws the errors of the state file. */
export async function check(tools: CheckTools, occasion: Occasion): Promise<CheckOutcome> {
  const { state, closures } = tools;
  const record = await state.load();
  const finding = await findRelease(record, occasion, tools);
  const drift = isPastTheLine(record.state)
    ? null
    : driftOf(record, await observe(tools, record.committed?.toplevel));
  const bootLoader = await bootLoaderFacts(tools);
  const outcome = { ...finding, record, drift, hold: await currentHold(tools), bootLoader };
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

import { driftOf, type Drift } from "../../core/update/drift.ts";
import { isHeld, type HoldRead } from "../../core/schedule/hold.ts";
import {
  EMPTY_RECORD,
  isPastTheLine,
  type AgentRecord,
  type EventType,
  type Reason,
} from "../../core/update/machine.ts";
import type { Observation } from "../../core/update/plan.ts";
import type { HistoryEntry } from "../../effects/state/history.ts";
import { readHold } from "../../effects/state/hold-file.ts";
import { Agent, type AgentTools, type PollReport } from "../agent.ts";
import { observe } from "../update/observe.ts";

const IMPORTED: EventType = "ClosureImported";

/** What this host is and what its agent is doing. */
export interface HostStatus {
  readonly hostname: string;
  readonly channel: string;
  /** This machine's hashed identity, as releases bind it; null where there is none. */
  readonly machineId: string | null;
  readonly record: AgentRecord;
  readonly host: Observation & { readonly generation: number | null };
  readonly lastPoll: PollReport | null;
  /** The closure that was imported last, and what deltas did for it; null where none is known. */
  readonly lastImport: Pick<HistoryEntry, "at" | "sequence" | "toplevel" | "deltas"> | null;
  /** Whether somebody holds the host; a hold that has ended is none. */
  readonly hold: HoldRead;
  /** How the host differs from its release, and not by an update that is under way. */
  readonly drift: Drift | null;
  /** What is wrong with what the state directory remembers. */
  readonly alarms: readonly Reason[];
}

/** Reads the status, from disk alone. */
export async function readStatus(tools: AgentTools): Promise<HostStatus> {
  const { settings, state, store } = tools;
  const { record: found, alarms } = await state.recall();
  const record = found ?? EMPTY_RECORD;
  const [host, hold] = await Promise.all([observe(store), currentHold(tools)]);
  const imported = await tools.history.findLast(IMPORTED);
  return {
    hostname: settings.hostname,
    channel: settings.channel,
    machineId: (await tools.machineId?.()) ?? null,
    record,
    alarms: [...alarms.map(({ code, message }) => ({ code, message })), ...holdAlarms(hold)],
    hold,
    drift: isPastTheLine(record.state) ? null : driftOf(record, host),
    host: { ...host, generation: await store.profileGeneration() },
    lastPoll: await new Agent(tools).lastPoll(),
    lastImport: imported
      ? {
          at: imported.at,
          sequence: imported.sequence,
          toplevel: imported.toplevel,
          deltas: imported.deltas,
        }
      : null,
  };
}

/** The hold that counts now. */
export async function currentHold({ settings, clock }: AgentTools): Promise<HoldRead> {
  const hold = await readHold(settings.paths.state);
  return isHeld(hold, clock.now()) ? hold : { kind: "none" };
}

/** What is wrong with a hold: a damaged one holds the host, and somebody has to look. */
export function holdAlarms(hold: HoldRead): Reason[] {
  return hold.kind === "damaged"
    ? [{ code: "STATE_CORRUPT", message: `hold: ${hold.why}; the host counts as held` }]
    : [];
}

/** The status as `status --json` prints it. */
export function statusJson({ record, ...rest }: HostStatus): object {
  const { formatVersion: _, ...parts } = record;
  return { ...rest, ...parts };
}

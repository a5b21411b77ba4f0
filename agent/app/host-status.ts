import { EMPTY_RECORD, type AgentRecord, type EventType, type Reason } from "../core/machine.ts";
import type { Observation } from "../core/plan.ts";
import type { HistoryEntry } from "../effects/history.ts";
import { Agent, type AgentTools, type PollReport } from "./agent.ts";

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
  /** What is wrong with the record of accepted releases. */
  readonly alarms: readonly Reason[];
}

/** Reads the status, from disk alone. */
export async function readStatus(tools: AgentTools): Promise<HostStatus> {
  const { settings, state, store } = tools;
  const { record, alarms } = await state.recall();
  const history = await tools.history.read();
  const imported = history.findLast(({ event }) => event === IMPORTED);
  return {
    hostname: settings.hostname,
    channel: settings.channel,
    machineId: (await tools.machineId?.()) ?? null,
    record: record ?? EMPTY_RECORD,
    alarms: alarms.map(({ code, message }) => ({ code, message })),
    host: {
      profile: await store.profileToplevel(),
      running: await store.runningToplevel(),
      generation: await store.profileGeneration(),
    },
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

/** The status as `status --json` prints it. */
export function statusJson({ record, ...rest }: HostStatus): object {
  const { formatVersion: _, ...parts } = record;
  return { ...rest, ...parts };
}

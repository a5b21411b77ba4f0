import { EMPTY_RECORD, type AgentRecord, type Reason } from "../core/machine.ts";
import type { Observation } from "../core/plan.ts";
import { Agent, type AgentTools, type PollReport } from "./agent.ts";

/** What this host is and what its agent is doing. */
export interface HostStatus {
  readonly hostname: string;
  readonly channel: string;
  /** This machine's hashed identity, as releases bind it; null where there is none. */
  readonly machineId: string | null;
  readonly record: AgentRecord;
  readonly host: Observation & { readonly generation: number | null };
  readonly lastPoll: PollReport | null;
  /** What is wrong with the record of accepted releases. */
  readonly alarms: readonly Reason[];
}

/** Reads the status, from disk alone. */
export async function readStatus(tools: AgentTools): Promise<HostStatus> {
  const { settings, state, store } = tools;
  const { record, alarms } = await state.recall();
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
  };
}

/** The status as `status --json` prints it. */
export function statusJson({ record, ...rest }: HostStatus): object {
  const { formatVersion: _, ...parts } = record;
  return { ...rest, ...parts };
}

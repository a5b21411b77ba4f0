import { toPullError } from "../../core/errors.ts";
import type { BootLoaderFacts } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { driftOf, type Drift } from "../../core/update/drift.ts";
import type { HoldRead } from "../../core/schedule/hold.ts";
import type { EventType } from "../../core/update/events.ts";
import { EMPTY_RECORD, type AgentRecord } from "../../core/update/record.ts";
import { isPastTheLine, type Reason } from "../../core/update/states.ts";
import type { Observation } from "../../core/update/observation.ts";
import type { HistoryEntry } from "../../core/update/history-entry.ts";
import type { AgentTools } from "../agent-tools.ts";
import { currentHold } from "../current-hold.ts";
import { observe } from "../observe.ts";
import { damageAlarms } from "../repair.ts";
import { HUNG, hangAlarms } from "../daemon/hang.ts";
import { readActivity, type Activity, type ActivityTools } from "./activity.ts";
import { lastSwitches, type LastSwitches } from "./last-switch.ts";
import { readPollReport, type PollReport } from "../poll/poll-report.ts";

const IMPORTED: EventType = "ClosureImported";

/** What this host is and what its agent is doing. */
export interface HostStatus {
  readonly hostname: string;
  readonly channel: string;
  /** This machine's hashed identity, as releases bind it; null if there is none. */
  readonly machineId: string | null;
  readonly record: AgentRecord;
  readonly host: Observation & { readonly generation: number | null };
  readonly lastPoll: PollReport | null;
  /** The closure that was imported last, and what deltas did for it; null if none is known. */
  readonly lastImport: Pick<HistoryEntry, "at" | "sequence" | "toplevel" | "deltas"> | null;
  /** Whether somebody holds the host; a hold that has ended is none. */
  readonly hold: HoldRead;
  /** How the host differs from its release, and not by an update that is under way. */
  readonly drift: Drift | null;
  /** What the last attempt's switches printed. */
  readonly lastSwitches: LastSwitches["switches"];
  /** What the last way back did not restore, or why it failed; null if it has nothing to say. */
  readonly wayBack: LastSwitches["wayBack"];
  readonly bootLoader: BootLoaderFacts;
  /** When the agent makes a reboot that is needed. */
  readonly rebootPolicy: Settings["reboot"]["policy"];
  /** Which processes of the agent run, and how far an update is. */
  readonly activity: Activity;
  /** What is wrong with what the state directory remembers. */
  readonly alarms: readonly Reason[];
}

/** What reading the status takes. */
export type StatusTools = Pick<
  AgentTools,
  | "settings"
  | "state"
  | "store"
  | "systems"
  | "history"
  | "files"
  | "commands"
  | "clock"
  | "machineId"
  | "bootLoader"
> &
  ActivityTools;

/** Reads the status, from disk alone. */
export async function readStatus(tools: StatusTools): Promise<HostStatus> {
  const { settings, state, store, history, files } = tools;
  const { record: found, alarms } = await state.recall();
  const record = found ?? EMPTY_RECORD;
  const [host, hold] = await Promise.all([observe(tools), currentHold(tools)]);
  const imported = await history.findLast(IMPORTED);
  const { switches, wayBack } = await lastSwitches(history);
  return {
    hostname: settings.hostname,
    channel: settings.channel,
    machineId: await tools.machineId(),
    record,
    alarms: await alarmsOf(alarms, hold, tools),
    hold,
    drift: isPastTheLine(record.state) ? null : driftOf(record, host),
    host: { ...host, generation: await store.profileGeneration() },
    ...{ lastSwitches: switches, wayBack },
    bootLoader: await bootLoaderFacts(tools),
    rebootPolicy: settings.reboot.policy,
    activity: await readActivity(record, tools),
    lastPoll: await readPollReport(files),
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

/**
 * What a person should look at: a service that hung, what is wrong with the state, what a repair left
 * damaged, a damaged hold.
 */
export async function alarmsOf(
  recalled: readonly Reason[],
  hold: HoldRead,
  { history, clock }: Pick<AgentTools, "history" | "clock">,
): Promise<Reason[]> {
  return [
    ...hangAlarms(await history.findLast(HUNG), clock.now()),
    ...recalled.map(({ code, message }) => ({ code, message })),
    ...(await damageAlarms({ history })),
    ...holdAlarms(hold),
  ];
}

/** What the boot loader is; that it cannot be asked is no reason to say nothing else. */
export async function bootLoaderFacts({
  bootLoader,
}: Pick<AgentTools, "bootLoader">): Promise<BootLoaderFacts> {
  try {
    return await bootLoader.look();
  } catch (error) {
    return { name: null, cannotTry: toPullError(error).message };
  }
}

/** What is wrong with a hold: a damaged one holds the host, and somebody has to look. */
export function holdAlarms(hold: HoldRead): Reason[] {
  return hold.kind === "damaged"
    ? [{ code: "STATE_CORRUPT", message: `hold: ${hold.why}; the host counts as held` }]
    : [];
}

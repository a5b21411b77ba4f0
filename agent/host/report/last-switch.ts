import * as z from "zod";
import type { HistoryStore } from "../../core/ports.ts";
import type { EventType } from "../../core/update/events.ts";
import { historyEntrySchema } from "../../core/update/history-entry.ts";

/** An event of the history with what a switch printed. */
export const switchEntrySchema = historyEntrySchema
  .pick({ at: true, event: true, sequence: true, toplevel: true, mode: true })
  .extend(historyEntrySchema.pick({ code: true, message: true }).shape)
  .extend({ lastLines: z.array(z.string()) });
export type SwitchEntry = z.infer<typeof switchEntrySchema>;

/** A way back that went on or ended, and what it has to say. */
export const wayBackSchema = historyEntrySchema
  .pick({ at: true, event: true, sequence: true })
  .extend({ message: z.string() });
export type WayBackEntry = z.infer<typeof wayBackSchema>;

/** What the history says about the last runs of switch-to-configuration. */
export interface LastSwitches {
  /** The events of the last attempt that have lines, oldest first. */
  readonly switches: readonly SwitchEntry[];
  /** What the last way back did not restore, or why it failed; null if it has nothing to say. */
  readonly wayBack: WayBackEntry | null;
}

/** Events with which an attempt begins. */
const BEGINNINGS: readonly string[] = ["ReleaseAccepted", "RevertBegun"] satisfies EventType[];
/** Events with which the host is as it should be: what a way back left open is past. */
const ARRIVALS: readonly string[] = [
  "HealthConfirmed",
  "BootDefaultSet",
  "AlreadyActive",
] satisfies EventType[];
/** Events of a way back. */
const WAYS_BACK: readonly string[] = [
  "RollbackSucceeded",
  "RollbackFailed",
  "RevertSucceeded",
  "RevertFailed",
] satisfies EventType[];

/** Reads the history from its end to where the last attempt with a switch began. */
export async function lastSwitches(history: HistoryStore): Promise<LastSwitches> {
  const switches: SwitchEntry[] = [];
  let wayBack: WayBackEntry | null | undefined;
  for await (const entry of history.newestFirst()) {
    const { at, event, sequence, toplevel, mode, code, message, lastLines = [] } = entry;
    if (wayBack === undefined) {
      if (ARRIVALS.includes(event)) wayBack = null;
      if (WAYS_BACK.includes(event)) {
        wayBack = message === undefined ? null : { at, event, sequence, message };
      }
    }
    if (lastLines.length > 0) {
      switches.unshift({ at, event, sequence, toplevel, mode, code, message, lastLines });
    }
    if (switches.length > 0 && BEGINNINGS.includes(event)) break;
  }
  return { switches, wayBack: wayBack ?? null };
}

import type { Release } from "../../core/formats/manifest.ts";
import { memoryOf, type TrustMemories } from "../../core/release/acceptance.ts";
import type { Event, EventType } from "../../core/update/events.ts";
import { advance } from "../../core/update/machine.ts";
import type { AgentRecord, PendingReboot } from "../../core/update/record.ts";
import { isPastTheLine, type State } from "../../core/update/states.ts";
import type { HistoryEntry } from "../../core/update/history-entry.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { Happening } from "./happening.ts";

/** What a step found out, beside the event that it leads to. */
export type Details = Pick<HistoryEntry, "lastLines" | "deltas">;

/** What keeping the journal takes. */
export type JournalTools = Pick<AgentTools, "settings" | "state" | "history" | "clock" | "log">;

/**
 * What is known of this host and what happened to it. The record on disk is never behind the
 * one in memory: it is saved before anything that it announces is done.
 */
export class Journal {
  #record: AgentRecord;
  readonly #tools: JournalTools;

  constructor(record: AgentRecord, tools: JournalTools) {
    this.#record = record;
    this.#tools = tools;
  }

  get record(): AgentRecord {
    return this.#record;
  }

  /** Records an event: the state file first, then the history. */
  async happened(happening: Happening, details: Details = {}): Promise<void> {
    const { clock, log } = this.#tools;
    const event: Event = { ...happening, at: clock.now().toISOString() };
    const { state: from } = this.#record;
    const before = subjectOf(event.type, this.#record);
    const writes = await this.#save(advance(this.#record, event));
    const { state } = this.#record;
    const release =
      "release" in event ? event.release : "release" in before ? before.release : undefined;
    const target = "target" in event ? event.target : "target" in before ? before.target : null;
    const reason = "reason" in event ? event.reason : undefined;
    const message = "message" in event ? event.message : reason?.message;
    await this.#tools.history.append({
      at: event.at,
      event: event.type,
      ...{ state: state.name, writes },
      ...(target && { toplevel: target.toplevel }),
      ...(release && {
        sequence: release.sequence,
        toplevel: release.toplevel,
        mode: release.mode,
      }),
      ...(reason && { code: reason.code }),
      ...(message !== undefined && { message }),
      ...details,
    });
    log.debug(`${from.name} → ${state.name}`, { event: event.type });
  }

  /** Keeps what was accepted, in the record and in the history. */
  async remember(memories: TrustMemories, release: Release | null): Promise<void> {
    if (JSON.stringify(memories) === JSON.stringify(this.#record.trust)) return;
    const writes = await this.#save({ ...this.#record, trust: memories });
    const { settings, clock, history } = this.#tools;
    const trust = memoryOf(memories, settings.channel);
    await history.append({
      at: clock.now().toISOString(),
      event: "ManifestAccepted",
      ...{ state: this.#record.state.name, writes },
      ...(trust && { sequence: trust.sequence, trust }),
      // The host may follow an older release than the one that was accepted.
      ...(release?.sequence === trust?.sequence && release && { toplevel: release.toplevel }),
    });
  }

  async #save(next: AgentRecord): Promise<number> {
    const writes = await this.#tools.state.save(next);
    this.#record = next;
    return writes;
  }
}

/** Events of a way back, also of one that another release took the place of. */
const OF_WAY_BACK: ReadonlySet<EventType> = new Set([
  "AgentRestarted",
  "RollbackSucceeded",
  "RollbackFailed",
  "RevertSucceeded",
  "RevertFailed",
  "ChangedByHand",
]);

/** Events of a boot that is pending, or was. */
const OF_BOOT: ReadonlySet<EventType> = new Set([
  "BootCalledOff",
  "RebootRequested",
  "RebootRefused",
  "RebootPrepared",
  "RebootNoticed",
]);

/**
 * What an event is about: the recorded state, the way back that is owed beside it, or the boot that
 * is pending.
 */
function subjectOf(
  type: EventType,
  { state, unfinishedWayBack, unfinishedRevert, pendingReboot }: AgentRecord,
): State | PendingReboot {
  if (OF_BOOT.has(type) && pendingReboot && !isPastTheLine(state)) return pendingReboot;
  const isBeside = OF_WAY_BACK.has(type) && !isPastTheLine(state);
  return (isBeside ? (unfinishedWayBack ?? unfinishedRevert) : null) ?? state;
}

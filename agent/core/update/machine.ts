import { ERROR_KINDS, isErrorCode } from "../errors.ts";
import type { Event, EventType } from "./events.ts";
import type { AgentRecord } from "./record.ts";
import type { Reason, StateName } from "./states.ts";
import { TRANSITIONS, type Transition } from "./transitions.ts";

/**
 * The agent's state machine. States say what is about to be done and are on disk
 * before it is done; events are facts that happened. Nothing here touches the world.
 *
 *   Idle → Candidate → Fetching → Imported → Staged ─────────────→ Committing → Committed → Idle
 *             ↓           ↓          ↓        ↓   ↘                ↗   ↑             ↓
 *           Failed ←──────┴──────────┴────────┘    Activating → Verifying     (pending reboot)
 *             ↑                                         ↓           ↓   ↑            ↓
 *             └──────────── RolledBack ←──────────── RollingBack ←──┘   └──── the next boot
 *
 *   Idle → Reverting → Idle, if a person goes back by hand
 *
 * `states` has what is in each, `events` what can happen, `transitions` the table that leads
 * from one to the next, `record` everything that is remembered.
 */

/** Whether an event may happen in a state. */
export function isExpected(state: StateName, event: EventType): boolean {
  return TRANSITIONS[state][event] !== undefined;
}

/**
 * The record after an event. Throws for an event that the state cannot meet: going on
 * from a state that was misunderstood could harm a host.
 */
export function advance(record: AgentRecord, event: Event): AgentRecord {
  const { state } = record;
  // The table ties each transition to its state and event; TypeScript cannot follow that
  // through a look-up by two names at once.
  const transition = TRANSITIONS[state.name][event.type] as
    Transition<StateName, EventType> | undefined;
  if (!transition) throw new Error(`event ${event.type} cannot happen in state ${state.name}`);
  return transition(state, event, record);
}

/**
 * What is known of the system that was booted. `open`: it waited for its boot, and the health
 * gate has not judged it yet.
 */
export type BootVerdict = "open" | "proven" | "rejected";

/** Why a trial is undone that did not leave the host with the system. */
const BACK_BY_ITSELF: readonly Reason["code"][] = ["BOOT_TRIAL_FAILED", "BOOT_NOT_TRIED"];

/** Judges the system of a boot. One that waited for nothing is proven. */
export function judgeBoot({ state, pendingReboot }: AgentRecord, bootId: string): BootVerdict {
  if (state.name === "Verifying" && state.afterBoot) return "open";
  if (state.name === "RollingBack" || state.name === "RolledBack") {
    // The boot that was called off may have come all the same.
    if (state.reason.code === "BOOT_CALLED_OFF") {
      return state.bootId === bootId ? "proven" : "rejected";
    }
    // The system that was booted is the one that was proven before.
    const isBack = BACK_BY_ITSELF.includes(state.reason.code);
    return isBack ? "proven" : "rejected";
  }
  if (pendingReboot === null) return "proven";
  if (pendingReboot.wayBack) return pendingReboot.bootId === bootId ? "rejected" : "proven";
  return pendingReboot.bootId === bootId ? "proven" : "open";
}

/**
 * Whether what failed with this code may succeed later without a change by a person. Of a code of
 * another version that is not known.
 */
export function isTransient(code: Reason["code"]): boolean {
  return isErrorCode(code) && ERROR_KINDS[code].transient;
}

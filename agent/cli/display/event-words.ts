import type { EventType } from "../../core/update/events.ts";
import type { HistoryEntry } from "../../core/update/history-entry.ts";
import type { HostWords } from "./host-words.ts";
import type { Style } from "./screen.ts";

/** Events that the history has beside those of the state machine. */
type OtherEvent =
  | "ManifestAccepted"
  | "ReleaseWaits"
  | "ReleaseConfirmed"
  | "Held"
  | "HoldEnded"
  | "HookFailed"
  | "GarbageCollected"
  | "StoreRepaired"
  | "StoreDamaged"
  | "StateMended"
  | "HistoryRotated"
  | "AgentHung";

/** An event as a person reads it: what happened, and whether that is good. */
interface EventWords {
  readonly text: string;
  readonly style?: Style;
  /** Whether the entry's message says the same, and is left out. */
  readonly isWhole?: true;
}

/**
 * What happened, in words; `SYSTEM` stands for the system of the entry. The entry's code and message
 * follow.
 */
const WORDS: Readonly<Record<EventType | OtherEvent, EventWords>> = {
  ManifestAccepted: { text: "was found on a mirror, signed and newer than those before" },
  ReleaseAccepted: { text: "the update begins" },
  ReleaseWithdrawn: { text: "withdrawn", style: "waiting" },
  ReleaseWaits: { text: "waits", style: "waiting" },
  ReleaseConfirmed: { text: "a person confirmed it" },
  AlreadyActive: { text: "adopted: this host was SYSTEM already", style: "good" },
  FetchBegun: { text: "the download begins" },
  ClosureImported: { text: "downloaded, and in the store" },
  BaselineRecorded: { text: "what to go back to is recorded" },
  AgentRestarted: { text: "another agent goes on with it" },
  ActivationBegun: { text: "the activation begins" },
  ActivationSucceeded: { text: "activated" },
  HealthConfirmed: { text: "healthy", style: "good" },
  CommitBegun: { text: "it becomes the boot default" },
  BootDefaultSet: { text: "it is the boot default", style: "good" },
  TrialArmed: { text: "the next boot tries it", style: "waiting" },
  ActivationRejected: { text: "failed", style: "bad" },
  ActivationInterrupted: { text: "cut off", style: "bad" },
  ChangedByHand: { text: "left alone", style: "waiting" },
  RollbackSucceeded: { text: "undone: the system from before is back" },
  RollbackFailed: { text: "the way back FAILED", style: "bad" },
  RevertBegun: { text: "a person went back to SYSTEM" },
  RevertSucceeded: { text: "back at SYSTEM", style: "good" },
  RevertFailed: { text: "the way back to SYSTEM FAILED", style: "bad" },
  AttemptFailed: { text: "failed", style: "bad" },
  LeftoversRemoved: { text: "cleaned up" },
  BootCalledOff: { text: "is no longer what the next boot tries", style: "waiting" },
  RebootRequested: { text: "the agent asked for the reboot" },
  RebootRefused: { text: "the reboot was refused", style: "waiting" },
  RebootPrepared: { text: "the hook preReboot runs" },
  RebootEnded: { text: "the hook postBoot ran" },
  RebootNoticed: { text: "the host was booted" },
  WayBackMissed: { text: "the boot did not lead back", style: "bad" },
  RebootSlotTaken: { text: "the FleetLock server gave the reboot slot" },
  RebootSlotReleased: { text: "the reboot slot was given back" },
  Held: { text: "a person held this host", style: "waiting" },
  HoldEnded: { text: "a person ended the hold" },
  HookFailed: { text: "a hook failed", style: "bad" },
  GarbageCollected: { text: "garbage was collected", isWhole: true },
  StoreDamaged: { text: "a repair left damaged store paths", style: "bad" },
  StoreRepaired: { text: "the store was repaired", isWhole: true },
  StateMended: { text: "the state was mended", style: "waiting" },
  HistoryRotated: { text: "the history goes on in a new file" },
  AgentHung: { text: "the service hung", style: "bad" },
};

/** What is known of an event; of one that only another version has, its name. */
function wordsOf(event: string): EventWords {
  return Object.hasOwn(WORDS, event) ? WORDS[event as EventType] : { text: event };
}

/** How an event is shown. */
export function styleOf({ event }: Pick<HistoryEntry, "event">): Style | undefined {
  return wordsOf(event).style;
}

/** What happened, in words, with the reason if there is one. */
export function describeEvent(
  entry: Pick<HistoryEntry, "event" | "toplevel" | "code" | "message" | "deltas">,
  words: HostWords,
): string {
  const { event, toplevel, code, message, deltas } = entry;
  const { text, isWhole } = wordsOf(event);
  const what = text.replace("SYSTEM", words.system(toplevel ?? null));
  const by = deltas ? ` (${deltas.used} paths by deltas, ${deltas.failed} deltas of no use)` : "";
  if (code !== undefined) return `${what}${by}: ${words.reason({ code, message: message ?? "" })}`;
  if (message === undefined || message === "") return `${what}${by}`;
  return isWhole ? words.message(message) : `${what}${by}: ${words.once(message)}`;
}

import type { Event } from "../../core/update/events.ts";
import type { KnownReason } from "../../core/update/states.ts";
import type { HalfDone } from "../../core/update/switch-verdict.ts";

/** An event before it has its time. */
export type Happening = Event extends infer E ? (E extends Event ? Omit<E, "at"> : never) : never;

/** The system is to blame: it is left and not tried again. */
export function rejected(code: KnownReason["code"], message: string): Happening {
  return { type: "ActivationRejected", reason: { code, message } };
}

/** The system is not shown to be at fault: it is left, and tried again a few times. */
export function interrupted(code: KnownReason["code"], message: string): Happening {
  return { type: "ActivationInterrupted", reason: { code, message } };
}

/** What a switch leads to that ended before its end. Only its own fault speaks against a system. */
export function halfDone(why: HalfDone, message: string): Happening {
  switch (why) {
    case "fault":
      return rejected("ACTIVATION_FAILED", message);
    // A host that swaps, or a disk that is slow, has the same switch take longer.
    case "timeout":
      return interrupted("ACTIVATION_TIMEOUT", message);
    case "unavailable":
      return interrupted("ACTIVATION_INTERRUPTED", message);
    default:
      return why satisfies never;
  }
}

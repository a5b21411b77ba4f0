import type { Event } from "../../core/update/events.ts";
import type { Reason } from "../../core/update/states.ts";

/** An event before it has its time. */
export type Happening = Event extends infer E ? (E extends Event ? Omit<E, "at"> : never) : never;

/** The system is to blame: it is left and not tried again. */
export function rejected(code: Reason["code"], message: string): Happening {
  return { type: "ActivationRejected", reason: { code, message } };
}

/** Undoes an activation that is not known to be bad, unless it was the last of so many. */
export function interrupted(
  { undone = 0 }: { readonly undone?: number | undefined },
  { code, message }: Reason,
  maxAttempts: number,
): Happening {
  return undone + 1 < maxAttempts
    ? { type: "ActivationInterrupted", reason: { code, message } }
    : rejected(code, maxAttempts === 1 ? message : `${message}, ${maxAttempts} times`);
}

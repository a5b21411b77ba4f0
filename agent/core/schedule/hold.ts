import * as z from "zod";
import { CLOCK_TOLERANCE_MS } from "../release/acceptance.ts";

/** The longest reason that is kept. */
export const MAX_HOLD_REASON = 500;

/** A person decided that this host stays as it is. */
export const holdSchema = z.strictObject({
  /** When that was. */
  at: z.iso.datetime(),
  /** When it ends by itself; null if a person has to end it. */
  until: z.iso.datetime().nullable(),
  /** For how long it was asked for, in milliseconds; absent if it was until a time, or without end. */
  lasts: z.int().positive().optional(),
  reason: z.string().min(1).max(MAX_HOLD_REASON).nullable(),
});
export type Hold = Readonly<z.infer<typeof holdSchema>>;

/** What is known of a hold. A file that cannot be read counts as a hold without an end. */
export const holdReadSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("none") }),
  z.strictObject({ kind: z.literal("held"), hold: holdSchema }),
  z.strictObject({ kind: z.literal("damaged"), why: z.string() }),
]);
export type HoldRead = Readonly<z.infer<typeof holdReadSchema>>;

/** Whether the host is held at a time: up to and not including the hold's end. */
export function isHeld(read: HoldRead, now: Date): boolean {
  switch (read.kind) {
    case "none":
      return false;
    case "damaged":
      return true;
    case "held":
      return read.hold.until === null || Date.parse(read.hold.until) > now.getTime();
    default:
      return read satisfies never;
  }
}

/**
 * A hold for a while that began in the future was made while the clock was ahead: gives it as
 * one that begins now, so that it holds the host no longer than it was asked to. Null for all
 * others, which stay what they are.
 */
export function restartedHold(read: HoldRead, now: Date): Hold | null {
  if (read.kind !== "held" || read.hold.lasts === undefined) return null;
  if (Date.parse(read.hold.at) <= now.getTime() + CLOCK_TOLERANCE_MS) return null;
  const until = new Date(now.getTime() + read.hold.lasts).toISOString();
  return { ...read.hold, at: now.toISOString(), until };
}

/** Describes a hold for people, also one that cannot be read. */
export function describeHold(read: Exclude<HoldRead, { kind: "none" }>): string {
  if (read.kind === "damaged") return `held, since the file of its hold is damaged: ${read.why}`;
  const { at, until, reason } = read.hold;
  const end = until === null ? "" : ` until ${until}`;
  return `held since ${at}${end}${reason === null ? "" : `: ${reason}`}`;
}

import * as z from "zod";

/** The longest reason that is kept. */
export const MAX_HOLD_REASON = 500;

/** A person decided that this host stays as it is. */
export const holdSchema = z.strictObject({
  /** When that was. */
  at: z.iso.datetime(),
  /** When it ends by itself; null if a person has to end it. */
  until: z.iso.datetime().nullable(),
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

/** Describes a hold for people, also one that cannot be read. */
export function describeHold(read: Exclude<HoldRead, { kind: "none" }>): string {
  if (read.kind === "damaged") return `held, since the file of its hold is damaged: ${read.why}`;
  const { at, until, reason } = read.hold;
  const end = until === null ? "" : ` until ${until}`;
  return `held since ${at}${end}${reason === null ? "" : `: ${reason}`}`;
}

import * as z from "zod";
import { placeInOrder } from "../release/host-order.ts";
import { positiveDurationSchema } from "../text/duration.ts";
import { cronSchema } from "./cron.ts";
import { Recurrence } from "./recurrence.ts";
import { timeZoneSchema } from "./local-time.ts";

/** A window that is open longer is no window. */
const MAX_WINDOW_MS = 7 * 24 * 60 * 60_000;

/**
 * A time that comes again and again and lasts a while. It opens whenever its expression comes
 * in its time zone (`Recurrence`), and stays open for its duration by the stopwatch.
 */
export const windowSchema = z.strictObject({
  cron: cronSchema.describe("Cron expression: when the window opens."),
  timezone: timeZoneSchema.default("UTC").describe("IANA time zone of the expression."),
  duration: positiveDurationSchema
    .refine((ms) => ms <= MAX_WINDOW_MS, { error: "expected a duration of at most 7d" })
    .describe("How long the window stays open; at most 7d."),
});
export type Window = z.infer<typeof windowSchema>;

/** How much later than its opening a window counts as open here, both in milliseconds. */
export type Spread = (opening: number, duration: number) => number;

const PUNCTUAL: Spread = () => 0;

/** A host waits at most this share of a window for its turn. */
const MAX_SPREAD = 0.25;

/**
 * Spreads the hosts of a fleet over the first part of a window, by their names. Each opening
 * has another order; the order of one opening is always the same.
 */
export function spreadOf(hostname: string, jitter: number): Spread {
  return (opening, duration) => {
    const salt = `window ${new Date(opening).toISOString()}`;
    return Math.floor(placeInOrder(salt, hostname) * Math.min(jitter, duration * MAX_SPREAD));
  };
}

/** Whether any of the windows is open. True if there is no window. */
export function isOpen(windows: readonly Window[], now: Date, spread = PUNCTUAL): boolean {
  if (windows.length === 0) return true;
  return windows.some((window) => {
    for (const opening of new Recurrence(window).before(now, window.duration)) {
      if (opening + spread(opening, window.duration) <= now.getTime()) return true;
    }
    return false;
  });
}

/** When the first of the windows opens after `now`; null if there is no window. */
export function nextOpening(windows: readonly Window[], now: Date, spread = PUNCTUAL): Date | null {
  const openings = windows.flatMap((window) => {
    const { duration } = window;
    const recurrence = new Recurrence(window);
    const next = recurrence.after(now)?.getTime();
    // Those that opened already, but not for this host yet.
    const recent = spread === PUNCTUAL ? [] : recurrence.before(now, duration * MAX_SPREAD);
    return [...recent, ...(next === undefined ? [] : [next])]
      .map((opening) => opening + spread(opening, duration))
      .filter((opening) => opening > now.getTime());
  });
  return openings.length === 0 ? null : new Date(Math.min(...openings));
}

/** When the window opened that is open now; null if it is closed. */
export function lastOpening(window: Window, now: Date): Date | null {
  for (const opening of new Recurrence(window).before(now, window.duration)) {
    return new Date(opening);
  }
  return null;
}

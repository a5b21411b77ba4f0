import * as z from "zod";
import { parseCron, type Cron } from "./cron.ts";
import { positiveDurationSchema } from "../text/duration.ts";
import { LocalTime, isTimeZone } from "./local-time.ts";
import { placeInOrder } from "../release/rollout.ts";

const DAY_MS = 24 * 60 * 60_000;

/** A window that is open longer is no window. */
const MAX_WINDOW_MS = 7 * DAY_MS;

/** After this many days the calendar, weekdays included, begins anew: 400 years. */
const CALENDAR_DAYS = 146_097;

/**
 * A time that comes again and again and lasts a while. It opens when clocks in its time
 * zone show a time of its expression, and lasts its duration by the stopwatch:
 *
 * - where clocks are set forward over that time, it opens the moment they are;
 * - where they are set back and show it twice, it opens the first time only;
 * - an expression that names every hour is about minutes: it opens in each hour that there
 *   is, twice in one that there is twice.
 */
export const windowSchema = z
  .strictObject({
    cron: z.string().describe("Cron expression: when the window opens."),
    timezone: z.string().default("UTC").describe("IANA time zone of the expression."),
    duration: positiveDurationSchema.describe("How long the window stays open; at most 7d."),
  })
  .superRefine(({ cron, timezone, duration }, context) => {
    const refuse = (key: string, message: string): void => {
      context.addIssue({ code: "custom", path: [key], message });
    };
    const parsed = parseCron(cron);
    if (typeof parsed === "string") refuse("cron", parsed);
    else if (!comesEver(parsed)) refuse("cron", "expected a day that comes");
    if (!isTimeZone(timezone)) refuse("timezone", "expected an IANA time zone");
    if (duration > MAX_WINDOW_MS) refuse("duration", "expected a duration of at most 7d");
  });
export type Window = z.infer<typeof windowSchema>;

/** How much later than its opening a window counts as open here, both in milliseconds. */
export type Spread = (opening: number, duration: number) => number;

const PUNCTUAL: Spread = () => 0;

/** A host waits at most this share of a window for its turn. */
const MAX_SPREAD = 0.25;

/**
 * Spreads the hosts of a fleet over the first part of a window, by their names: another order
 * at each opening, the same one whenever it is asked for.
 */
export function spreadOf(hostname: string, jitter: number): Spread {
  return (opening, duration) => {
    const salt = `window ${new Date(opening).toISOString()}`;
    return Math.floor(placeInOrder(salt, hostname) * Math.min(jitter, duration * MAX_SPREAD));
  };
}

/** Whether any of the windows is open; true where there is none. */
export function isOpen(windows: readonly Window[], now: Date, spread = PUNCTUAL): boolean {
  if (windows.length === 0) return true;
  return windows.some((window) => {
    for (const opening of openingsBefore(window, now, window.duration)) {
      if (opening + spread(opening, window.duration) <= now.getTime()) return true;
    }
    return false;
  });
}

/** When the first of the windows opens after `now`. */
export function nextOpening(windows: readonly Window[], now: Date, spread = PUNCTUAL): Date | null {
  const openings = windows.flatMap((window) => {
    const { duration } = window;
    const next = openingAfter(window, now)?.getTime();
    // Those that opened, but not here yet.
    const recent = spread === PUNCTUAL ? [] : openingsBefore(window, now, duration * MAX_SPREAD);
    return [...recent, ...(next === undefined ? [] : [next])]
      .map((opening) => opening + spread(opening, duration))
      .filter((opening) => opening > now.getTime());
  });
  return openings.length === 0 ? null : new Date(Math.min(...openings));
}

/** When the window opened that is open now; null where it is closed. */
export function lastOpening(window: Window, now: Date): Date | null {
  for (const opening of openingsBefore(window, now, window.duration)) return new Date(opening);
  return null;
}

/** The openings in the last `ms` up to `now`, newest first. */
function* openingsBefore(window: Window, now: Date, ms: number): Generator<number> {
  const { cron, local } = read(window);
  const oldest = now.getTime() - ms;
  const firstDay = dayOf(local.at(oldest)) - 1;
  // A day more on both sides: where clocks are set back, a later day may have begun before.
  for (let day = dayOf(local.at(now.getTime())) + 1; day >= firstDay; day--) {
    for (const opening of openingsOn(day, cron, local).reverse()) {
      if (opening <= now.getTime() && opening > oldest) yield opening;
    }
  }
}

/** When the window opens next after `now`. */
export function openingAfter(window: Window, now: Date): Date | null {
  const { cron, local } = read(window);
  const today = dayOf(local.at(now.getTime()));
  for (let day = today - 1; day <= today + CALENDAR_DAYS; day++) {
    const next = openingsOn(day, cron, local).find((opening) => opening > now.getTime());
    if (next !== undefined) return new Date(next);
  }
  return null;
}

/** Throws for a window that did not pass the schema. */
function read({ cron, timezone }: Window): { cron: Cron; local: LocalTime } {
  const parsed = parseCron(cron);
  if (typeof parsed === "string") throw new Error(parsed);
  return { cron: parsed, local: new LocalTime(timezone) };
}

/** Days since 1970. */
function dayOf(local: number): number {
  return Math.floor(local / DAY_MS);
}

function isDay({ days, months, weekdays }: Cron, day: number): boolean {
  const date = new Date(day * DAY_MS);
  return (
    days.has(date.getUTCDate()) &&
    months.has(date.getUTCMonth() + 1) &&
    weekdays.has(date.getUTCDay())
  );
}

function comesEver(cron: Cron): boolean {
  for (let day = 0; day < CALENDAR_DAYS; day++) if (isDay(cron, day)) return true;
  return false;
}

/** The instants at which a window opens on a local day, in order. */
function openingsOn(day: number, cron: Cron, local: LocalTime): number[] {
  if (!isDay(cron, day)) return [];
  const everyHour = cron.hours.length === 24;
  const openings = new Set<number>();
  for (const hour of cron.hours) {
    for (const minute of cron.minutes) {
      for (const second of cron.seconds) {
        const time = day * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000;
        const [first, again] = local.instantsOf(time);
        if (first !== undefined) openings.add(first);
        else if (!everyHour) openings.add(local.skipOver(time));
        if (again !== undefined && everyHour) openings.add(again);
      }
    }
  }
  return [...openings].sort((a, b) => a - b);
}

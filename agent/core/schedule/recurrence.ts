import { CALENDAR_DAYS, parseCron, type Cron } from "./cron.ts";
import { LocalTime } from "./local-time.ts";

const DAY_MS = 24 * 60 * 60_000;

/**
 * The instants of a cron expression in a time zone: when clocks on the wall there show a
 * time of the expression. What that means when clocks change:
 *
 * - if they are set forward over that time, it comes the moment they are;
 * - if they are set back and show it twice, it comes the first time only;
 * - an expression that names every hour is about minutes: it comes in each hour that there
 *   is, twice in one that there is twice.
 */
export class Recurrence {
  readonly #cron: Cron;
  readonly #local: LocalTime;

  /** Throws for an expression or a time zone that did not pass its schema. */
  constructor({ cron, timezone }: { readonly cron: string; readonly timezone: string }) {
    const parsed = parseCron(cron);
    if (typeof parsed === "string") throw new Error(parsed);
    this.#cron = parsed;
    this.#local = new LocalTime(timezone);
  }

  /** The instants in the last `ms` up to and with `now`, newest first. */
  *before(now: Date, ms: number): Generator<number> {
    const oldest = now.getTime() - ms;
    const firstDay = this.#dayAt(oldest) - 1;
    // A day more on both sides: if clocks are set back, a later day may have begun before.
    for (let day = this.#dayAt(now.getTime()) + 1; day >= firstDay; day--) {
      for (const instant of this.#on(day).reverse()) {
        if (instant <= now.getTime() && instant > oldest) yield instant;
      }
    }
  }

  /** The first instant after `now`; null if none comes in 400 years. */
  after(now: Date): Date | null {
    const today = this.#dayAt(now.getTime());
    for (let day = today - 1; day <= today + CALENDAR_DAYS; day++) {
      const next = this.#on(day).find((instant) => instant > now.getTime());
      if (next !== undefined) return new Date(next);
    }
    return null;
  }

  /** The local day at an instant, in days since 1970. */
  #dayAt(instant: number): number {
    return Math.floor(this.#local.at(instant) / DAY_MS);
  }

  /** The instants on a local day, in order. */
  #on(day: number): number[] {
    if (!this.#cron.isDay(day)) return [];
    const { times, everyHour } = this.#cron;
    const instants = new Set<number>();
    for (const time of times) {
      const local = day * DAY_MS + time;
      const [first, again] = this.#local.instantsOf(local);
      if (first !== undefined) instants.add(first);
      else if (!everyHour) instants.add(this.#local.skipOver(local));
      if (again !== undefined && everyHour) instants.add(again);
    }
    return [...instants].sort((a, b) => a - b);
  }
}

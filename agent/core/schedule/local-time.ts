import * as z from "zod";

/** Time zones change their offset from UTC only at full quarters of an hour of UTC. */
const QUARTER_MS = 15 * 60_000;
const DAY_MS = 24 * 60 * 60_000;

/** A time zone that this program's own tables have, such as Europe/Berlin. */
export const timeZoneSchema = z
  .string()
  .refine(isTimeZone, { error: "expected an IANA time zone, such as Europe/Berlin" });

function isTimeZone(timezone: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: timezone });
    return true;
  } catch {
    return false;
  }
}

/**
 * What clocks on the wall show in a time zone. Local times are written as the milliseconds
 * that the same date and time have in UTC.
 */
export class LocalTime {
  readonly #format: Intl.DateTimeFormat;
  readonly #offsets = new Map<number, number>();

  /** Throws a RangeError if this is no time zone. */
  constructor(timezone: string) {
    this.#format = new Intl.DateTimeFormat("en", {
      ...{ timeZone: timezone, hourCycle: "h23", era: "short" },
      ...{ year: "numeric", month: "numeric", day: "numeric" },
      ...{ hour: "numeric", minute: "numeric", second: "numeric" },
    });
  }

  /** The local time at an instant. */
  at(instant: number): number {
    return instant + this.#offset(instant);
  }

  /**
   * The instants at which clocks show a local time: one; two, in order, if they are set back
   * over it; none if they are set forward over it.
   */
  instantsOf(local: number): number[] {
    const [earlier, later] = this.#offsetsAround(local);
    const instants = [local - earlier];
    if (later !== earlier) instants.push(local - later);
    return instants.filter((instant) => this.at(instant) === local).sort((a, b) => a - b);
  }

  /** The instant at which clocks are set forward over a local time that they never show. */
  skipOver(local: number): number {
    const [earlier, later] = this.#offsetsAround(local);
    let instant = Math.floor((local - Math.max(earlier, later)) / QUARTER_MS) * QUARTER_MS;
    while (this.at(instant) <= local) instant += QUARTER_MS;
    return instant;
  }

  /** Offsets a day before and a day after: any change on that day lies between them. */
  #offsetsAround(local: number): [number, number] {
    return [this.#offset(local - DAY_MS), this.#offset(local + DAY_MS)];
  }

  #offset(instant: number): number {
    const quarter = Math.floor(instant / QUARTER_MS) * QUARTER_MS;
    const known = this.#offsets.get(quarter);
    if (known !== undefined) return known;
    const parts = new Map(
      this.#format.formatToParts(quarter).map(({ type, value }) => [type, value] as const),
    );
    const part = (type: Intl.DateTimeFormatPartTypes): number => Number(parts.get(type));
    const local = Date.UTC(
      ...([part("year"), part("month") - 1, part("day")] as const),
      ...([part("hour"), part("minute"), part("second")] as const),
    );
    const offset = local - quarter;
    this.#offsets.set(quarter, offset);
    return offset;
  }
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A span that is longer than this is told by dates alone. */
const MAX_RELATIVE = 14 * DAY;

/** UTC times as this program writes them into messages, with an "at" before them. */
const UTC_TIME = /(\bat )?\b(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z)/g;

/** How long something takes, took or is away, for people, as one number: `45 s`, `11 min`, `3 hours`. */
export function describeSpan(ms: number): string {
  const length = Math.abs(ms);
  if (length < 90 * SECOND) return `${Math.round(length / SECOND)} s`;
  if (length < 90 * MINUTE) return `${Math.round(length / MINUTE)} min`;
  if (length < 36 * HOUR) return `${Math.round(length / HOUR)} hours`;
  return `${Math.round(length / DAY)} days`;
}

/** What times are compared with, and how they are shown. */
export interface TimesOptions {
  readonly now: Date;
  /** An IANA time zone; this machine's own (TZ, /etc/localtime) if absent. */
  readonly zone?: string | undefined;
  /** Whether exact UTC times are shown instead of local and relative ones. */
  readonly utc?: boolean | undefined;
}

/** Shows times (ISO 8601, UTC) to people. A text that is no time is given back as it is. */
export class Times {
  readonly now: Date;
  /** Whether all times are exact and in UTC. */
  readonly isExact: boolean;
  readonly #format: Intl.DateTimeFormat;

  /** Throws a RangeError if the zone is none. */
  constructor({ now, zone, utc = false }: TimesOptions) {
    this.now = now;
    this.isExact = utc;
    this.#format = new Intl.DateTimeFormat("en-GB", {
      ...(zone !== undefined && { timeZone: zone }),
      ...{ weekday: "short", day: "numeric", month: "short", year: "numeric" },
      ...{ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" },
    });
  }

  /** The local time, with the day if it is another one: `14:05`, `yesterday 14:05`, `Fri 4 Dec 14:05`. */
  clock(at: string): string {
    const time = Date.parse(at);
    if (Number.isNaN(time)) return at;
    return this.isExact ? exact(time) : this.#clock(time);
  }

  /** The same with seconds. */
  clockSeconds(at: string): string {
    const time = Date.parse(at);
    if (Number.isNaN(time)) return at;
    return this.isExact ? exact(time) : `${this.#clock(time)}:${this.#parts(time).second}`;
  }

  /** How far away a time is: `a moment ago`, `3 hours ago`, `in 11 min`; the local time if that is long. */
  ago(at: string): string {
    const time = Date.parse(at);
    if (Number.isNaN(time)) return at;
    if (this.isExact) return exact(time);
    const age = this.now.getTime() - time;
    if (Math.abs(age) > MAX_RELATIVE) return this.#clock(time);
    if (Math.abs(age) < 5 * SECOND) return age >= 0 ? "a moment ago" : "now";
    return age > 0 ? `${describeSpan(age)} ago` : `in ${describeSpan(age)}`;
  }

  /** Both: `yesterday 14:05 (20 hours ago)`, `04:00 (in 11 min)`. */
  both(at: string): string {
    const [clock, ago] = [this.clock(at), this.ago(at)];
    return clock === ago ? clock : `${clock} (${ago})`;
  }

  /** A message in which UTC times stand, with local ones instead. */
  within(text: string): string {
    return text.replace(UTC_TIME, (_, before: string | undefined, at: string) => {
      const shown = this.clock(at);
      // "at 14:05", but "tomorrow 14:05".
      return `${shown.includes(" ") ? "" : (before ?? "")}${shown}`;
    });
  }

  /** The local day of a time, to compare with another one's: `Fri 4 Dec 2026`. */
  day(at: string): string {
    const { weekday, day, month, year } = this.#parts(Date.parse(at));
    return `${weekday} ${day} ${month} ${year}`;
  }

  #clock(time: number): string {
    const { weekday, day, month, year, hour, minute } = this.#parts(time);
    return `${this.#dayName({ weekday, day, month, year })}${hour}:${minute}`;
  }

  #dayName({ weekday, day, month, year }: Record<"weekday" | "day" | "month" | "year", string>) {
    const now = this.now.getTime();
    const date = `${day} ${month} ${year}`;
    if (date === this.#date(now)) return "";
    // Days have 23 to 25 hours: from noon, 24 hours lead to the day before or after.
    const noon = now + (12 - Number(this.#parts(now).hour)) * HOUR;
    if (date === this.#date(noon - DAY)) return "yesterday ";
    if (date === this.#date(noon + DAY)) return "tomorrow ";
    const shownYear = year === this.#parts(now).year ? "" : ` ${year}`;
    return `${weekday} ${day} ${month}${shownYear} `;
  }

  #date(time: number): string {
    const { day, month, year } = this.#parts(time);
    return `${day} ${month} ${year}`;
  }

  #parts(time: number) {
    const parts = new Map(this.#format.formatToParts(time).map((it) => [it.type, it.value]));
    const part = (type: Intl.DateTimeFormatPartTypes): string => parts.get(type) ?? "";
    return {
      ...{ weekday: part("weekday"), day: part("day"), month: part("month"), year: part("year") },
      ...{ hour: part("hour"), minute: part("minute"), second: part("second") },
    };
  }
}

/** A time in UTC, without fractions of a second that are none. */
function exact(time: number): string {
  return new Date(time).toISOString().replace(".000Z", "Z");
}

/**
 * Cron expressions for windows: minute, hour, day of the month, month, day of the week, and
 * seconds in front where there are six fields. Every field must match, so that
 * `0 2 1-7 * 6` is the first Saturday of a month.
 */
export interface Cron {
  readonly seconds: readonly number[];
  readonly minutes: readonly number[];
  readonly hours: readonly number[];
  readonly days: ReadonlySet<number>;
  /** From 1 on. */
  readonly months: ReadonlySet<number>;
  /** From Sunday, 0, on. */
  readonly weekdays: ReadonlySet<number>;
}

interface Field {
  readonly name: string;
  readonly min: number;
  readonly max: number;
  /** Three-letter names of the values from `min` on. */
  readonly names?: readonly string[];
}

const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS = {
  second: { name: "second", min: 0, max: 59 },
  minute: { name: "minute", min: 0, max: 59 },
  hour: { name: "hour", min: 0, max: 23 },
  day: { name: "day of the month", min: 1, max: 31 },
  month: { name: "month", min: 1, max: 12, names: MONTHS },
  // 7 is Sunday, too.
  weekday: { name: "day of the week", min: 0, max: 7, names: WEEKDAYS },
} as const satisfies Record<string, Field>;

/** Longer texts are not looked at. */
const MAX_LENGTH = 200;

/** Parses an expression; gives a text that says what is wrong with one that is none. */
export function parseCron(text: string): Cron | string {
  const fields = text.trim().split(/\s+/);
  if (text.length > MAX_LENGTH || (fields.length !== 5 && fields.length !== 6)) {
    return `expected a cron expression of five or six fields, found ${JSON.stringify(text.slice(0, MAX_LENGTH))}`;
  }
  const [second = "", minute = "", hour = "", day = "", month = "", weekday = ""] =
    fields.length === 6 ? fields : ["0", ...fields];
  try {
    const weekdays = valuesOf(weekday, FIELDS.weekday).map((value) => value % 7);
    return {
      seconds: valuesOf(second, FIELDS.second),
      minutes: valuesOf(minute, FIELDS.minute),
      hours: valuesOf(hour, FIELDS.hour),
      days: new Set(valuesOf(day, FIELDS.day)),
      months: new Set(valuesOf(month, FIELDS.month)),
      weekdays: new Set(weekdays),
    };
  } catch (error) {
    if (error instanceof RangeError) return error.message;
    throw error;
  }
}

/** The values that a field names, ascending. Throws a RangeError. */
function valuesOf(text: string, field: Field): number[] {
  const values = new Set<number>();
  for (const part of text.split(",")) {
    const [, range = "", step] = /^([^/]+)(?:\/(\d{1,2}))?$/.exec(part) ?? [];
    const [from, to] = boundsOf(range, field, part);
    const every = step === undefined ? 1 : Number(step);
    if (every === 0 || (step !== undefined && !/[*-]/.test(range))) throw notIn(field, part);
    // A range such as 22-2 goes over the end.
    const span = field.max - field.min + 1;
    const length = to >= from ? to - from : to + span - from;
    for (let at = 0; at <= length; at += every) {
      values.add(((from - field.min + at) % span) + field.min);
    }
  }
  return [...values].sort((a, b) => a - b);
}

function boundsOf(range: string, field: Field, part: string): [number, number] {
  if (range === "*") return [field.min, field.max];
  const [first = "", last = first, ...more] = range.split("-");
  if (more.length > 0) throw notIn(field, part);
  return [valueOf(first, field, part), valueOf(last, field, part)];
}

function valueOf(text: string, field: Field, part: string): number {
  const named = field.names?.indexOf(text.toLowerCase()) ?? -1;
  const value = named >= 0 ? named + field.min : /^\d{1,2}$/.test(text) ? Number(text) : NaN;
  if (!(value >= field.min && value <= field.max)) throw notIn(field, part);
  return value;
}

function notIn({ name, min, max }: Field, part: string): RangeError {
  return new RangeError(
    `expected ${name === "hour" ? "an" : "a"} ${name} from ${min} to ${max}, *, a range such as ${min}-${min + 1} or steps such ` +
      `as */2, found ${JSON.stringify(part)}`,
  );
}

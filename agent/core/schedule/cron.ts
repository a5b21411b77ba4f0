import { createTask, validateDetailed, type ScheduledTask } from "node-cron";
import * as z from "zod";

/**
 * Cron expressions, for maintenance windows and for polls alike: minute, hour, day of the
 * month, month, day of the week, and seconds in front if there are six fields. All fields
 * must match, so that `0 2 1-7 * 6` is the first Saturday of a month.
 *
 * node-cron says what an expression means: it parses it and judges its days. It does not say
 * when: it looks for times from the present on only, while a window must know when it opened
 * last, and it leaves out a time that clocks skip. `Recurrence` does that, for both.
 *
 * core/ may import node-cron here, since none of what is used of it does any I/O.
 */
export interface Cron {
  /** Times of the day, in milliseconds from midnight, ascending. */
  readonly times: readonly number[];
  /** Whether it names every hour, so that it is about minutes. */
  readonly everyHour: boolean;
  /** Whether it names a day, given as days since 1970. */
  isDay(day: number): boolean;
}

const DAY_MS = 24 * 60 * 60_000;

/** After this many days the calendar, weekdays included, begins anew: 400 years. */
export const CALENDAR_DAYS = 146_097;

/** Longer texts are refused unread. */
const MAX_LENGTH = 200;

/** Least and greatest value of each field, seconds first. 7 is Sunday, too. */
const BOUNDS = [
  ["second", 0, 59],
  ["minute", 0, 59],
  ["hour", 0, 23],
  ["day of the month", 1, 31],
  ["month", 1, 12],
  ["day of the week", 0, 7],
] as const;

const FIELD_NAMES: Readonly<Record<string, string>> = {
  ...{ second: "second", minute: "minute", hour: "hour", month: "month" },
  ...{ dayOfMonth: "day of the month", dayOfWeek: "day of the week" },
};

/** Parses an expression. Gives a text that says what was expected if it is none. */
export function parseCron(text: string): Cron | string {
  if (text.length > MAX_LENGTH) return expectedFields();
  const wrong = fieldOutOfBounds(text);
  if (wrong !== null) return expectedFields(wrong);
  const { fields, errors } = validateDetailed(text);
  if (!fields) return expectedFields(FIELD_NAMES[errors[0]?.field ?? ""]);
  const times = fields.hour.flatMap((hour) =>
    fields.minute.flatMap((minute) =>
      fields.second.map((second) => ((hour * 60 + minute) * 60 + second) * 1_000),
    ),
  );
  times.sort((a, b) => a - b);
  const cron: Cron = {
    times: [...new Set(times)],
    everyHour: new Set(fields.hour).size === 24,
    isDay: dayJudge(matcherOf(text), { ...fields, time: times[0] ?? 0 }),
  };
  return comesEver(cron) ? cron : "expected a day that comes";
}

/** A cron expression in settings. */
export const cronSchema = z.string().superRefine((text, context) => {
  const parsed = parseCron(text);
  if (typeof parsed === "string") context.addIssue({ code: "custom", message: parsed });
});

function expectedFields(wrong?: string): string {
  return `expected a cron expression of five or six fields${wrong ? ` with a valid ${wrong}` : ""}`;
}

/**
 * The first field with a range that begins or ends out of its bounds. node-cron takes some of
 * them (hours from 30 to 10), and counts up to the end of any.
 */
function fieldOutOfBounds(text: string): string | null {
  const fields = text.trim().split(/ +/);
  const bounds = fields.length === 5 ? BOUNDS.slice(1) : BOUNDS;
  for (const [at, [name, min, max]] of bounds.entries()) {
    for (const token of fields[at]?.split(",") ?? []) {
      const [, ...ends] = /^(\d+)-(\d+)/.exec(token) ?? [];
      if (ends.some((end) => Number(end) < min || Number(end) > max)) return name;
    }
  }
  return null;
}

/** node-cron's own judge of an expression. It is destroyed at once: it is never to run. */
function matcherOf(text: string): ScheduledTask {
  const task = createTask(text, () => undefined, { timezone: "UTC" });
  void task.destroy();
  return task;
}

/**
 * Asks the matcher about a day, but only if its month and number can be right: it is slow.
 * Local days are given to it as days in UTC.
 */
function dayJudge(
  matcher: ScheduledTask,
  fields: { month: readonly number[]; dayOfMonth: readonly (number | string)[]; time: number },
): Cron["isDay"] {
  const months = new Set(fields.month);
  const days = new Set(fields.dayOfMonth);
  // `L` and the like: which day that is depends on the month.
  // Stryker disable next-line ConditionalExpression: if days are asked for in vain, it takes longer
  const anyDay = fields.dayOfMonth.some((day) => typeof day === "string");
  return (day) => {
    const date = new Date(day * DAY_MS + fields.time);
    // Stryker disable next-line ConditionalExpression: the matcher knows the months, too
    if (!months.has(date.getUTCMonth() + 1)) return false;
    // Stryker disable next-line ConditionalExpression: the matcher knows the days, too
    return (anyDay || days.has(date.getUTCDate())) && matcher.match(date);
  };
}

function comesEver(cron: Cron): boolean {
  // Stryker disable next-line EqualityOperator: the day after the calendar's last is its first
  for (let day = 0; day < CALENDAR_DAYS; day++) if (cron.isDay(day)) return true;
  return false;
}

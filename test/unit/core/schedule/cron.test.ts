import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { cronSchema, parseCron, type Cron } from "../../../../agent/core/schedule/cron.ts";

const DAY_MS = 86_400_000;

function parsed(text: string): Cron {
  const cron = parseCron(text);
  if (typeof cron === "string") throw new Error(cron);
  return cron;
}

/** The times of a day, as clocks show them. */
function times(text: string): string[] {
  return parsed(text).times.map((time) => new Date(time).toISOString().slice(11, 19));
}

/** The days that an expression names in the three months from February 2026 on. */
function days(text: string): string[] {
  const { isDay } = parsed(text);
  const first = Date.parse("2026-02-01T00:00:00Z") / DAY_MS;
  return Array.from({ length: 28 + 31 + 30 }, (_, at) => first + at)
    .filter(isDay)
    .map((day) => new Date(day * DAY_MS).toISOString().slice(5, 10));
}

describe("a cron expression names times", () => {
  test.each<[string, string[]]>([
    ["0 2 * * *", ["02:00:00"]],
    [" 0  2 * * * ", ["02:00:00"]],
    ["30 0 2 * * *", ["02:00:30"]],
    ["@daily", ["00:00:00"]],
    ["*/20 2 * * *", ["02:00:00", "02:20:00", "02:40:00"]],
    ["5-20/5 2 * * *", ["02:05:00", "02:10:00", "02:15:00", "02:20:00"]],
    ["5,1,5 2 * * *", ["02:01:00", "02:05:00"]],
    ["0 22-2 * * *", ["00:00:00", "01:00:00", "02:00:00", "22:00:00", "23:00:00"]],
    ["30,0 3,2 * * *", ["02:00:00", "02:30:00", "03:00:00", "03:30:00"]],
    ["59 23 * * *", ["23:59:00"]],
  ])("%j: %j", (text, expected) => {
    expect(times(text)).toEqual(expected);
  });

  test("and whether these are in every hour", () => {
    expect(parsed("30 * * * *").everyHour).toBe(true);
    expect(parsed("30 0-23 * * *").everyHour).toBe(true);
    expect(parsed("30 */2 * * *").everyHour).toBe(false);
    expect(parsed("30 0-22 * * *").everyHour).toBe(false);
  });
});

describe("a cron expression names days", () => {
  test.each<[string, string[]]>([
    // 2026-02-07, 2026-03-07 and 2026-04-04 are Saturdays.
    ["0 2 1-7 * 6", ["02-07", "03-07", "04-04"]],
    ["0 2 1 * *", ["02-01", "03-01", "04-01"]],
    ["0 2 1 MAR,april *", ["03-01", "04-01"]],
    ["0 2 1 11-2 *", ["02-01"]],
    ["0 2 1-8 4 7", ["04-05"]],
    ["0 2 1-8 4 0", ["04-05"]],
    ["0 2 1-7 4 fri-sun", ["04-03", "04-04", "04-05"]],
    ["0 2 1-7 4 MON-FRI", ["04-01", "04-02", "04-03", "04-06", "04-07"]],
    ["0 2 1-7 4 5-7", ["04-03", "04-04", "04-05"]],
    // node-cron's own words: the last day, a working day, the first Saturday.
    ["0 2 L * *", ["02-28", "03-31", "04-30"]],
    ["0 2 15,L * *", ["02-15", "02-28", "03-15", "03-31", "04-15", "04-30"]],
    ["0 2 LW * *", ["02-27", "03-31", "04-30"]],
    ["0 2 * * 6#1", ["02-07", "03-07", "04-04"]],
    ["0 2 * * 5L", ["02-27", "03-27", "04-24"]],
    ["0 2 29 2 *", []],
  ])("%s: %j", (text, expected) => {
    expect(days(text)).toEqual(expected);
  });
});

describe("what is no cron expression is refused", () => {
  test.each([
    ["", "five or six fields"],
    ["sometimes", "five or six fields"],
    ["0 2 * *", "five or six fields"],
    ["0 0 2 * * * *", "five or six fields"],
    ["60 2 * * *", "a valid minute"],
    ["60 0 2 * * *", "a valid second"],
    ["0 24 * * *", "a valid hour"],
    ["0 30-10 * * *", "a valid hour"],
    ["0 10-30 * * *", "a valid hour"],
    ["0 0 30-10 * * *", "a valid hour"],
    ["  0 30-10  * * * ", "a valid hour"],
    [" 0 0  30-10 * * * ", "a valid hour"],
    ["60 x30-31 * * *", "a valid minute"],
    ["0 2 5-0 * *", "a valid day of the month"],
    ["0 2 * 5-0 *", "a valid month"],
    ["0 0-99999999999 * * *", "a valid hour"],
    ["0 2 0 * *", "a valid day of the month"],
    ["0 2 0-5 * *", "a valid day of the month"],
    ["0 2 * 13 *", "a valid month"],
    ["0 2 * may-xyz *", "a valid month"],
    ["0 2 * * 8", "a valid day of the week"],
    ["*/0 2 * * *", "a valid minute"],
    ["5/10 2 * * *", "a valid minute"],
    ["1-2-3 2 * * *", "a valid minute"],
    ["-1 2 * * *", "a valid minute"],
    ["1, 2 * * *", "a valid minute"],
    ["1e1 2 * * *", "a valid minute"],
    ["0 2 30 2 *", "a valid day of the month"],
    ["0 2 L-30 2 *", "a day that comes"],
    [`${"0,".repeat(200)}0 2 * * *`, "five or six fields"],
  ])("%j: expected %s", (text, words) => {
    expect(parseCron(text)).toContain(words);
  });

  test("in one sentence, also by the schema of settings", () => {
    const expected = "expected a cron expression of five or six fields";
    expect(parseCron("sometimes")).toBe(expected);
    const issues = cronSchema.safeParse("sometimes").error?.issues;
    expect(issues).toMatchObject([{ code: "custom", message: expected }]);
    expect(cronSchema.parse("0 2 * * *")).toBe("0 2 * * *");
  });

  test("if it is longer than 200 characters", () => {
    expect(times("0 2 * * *".padEnd(200))).toEqual(["02:00:00"]);
    expect(parseCron("0 2 * * *".padEnd(201))).toContain("five or six fields");
  });

  test("or parsed, never thrown at, whatever its characters", () => {
    const characters = fc.constantFrom(...Array.from("0123456789*/-,# JANSUNL@?W"));
    fc.assert(
      fc.property(fc.string({ unit: characters, maxLength: 30 }), (text) => {
        const cron = parseCron(text);
        if (typeof cron === "string") expect(cron).toContain("expected");
        else expect(cron.times).not.toEqual([]);
      }),
    );
  });
});

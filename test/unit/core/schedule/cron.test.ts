import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseCron, type Cron } from "../../../../agent/core/schedule/cron.ts";

function parsed(text: string): Cron {
  const cron = parseCron(text);
  if (typeof cron === "string") throw new Error(cron);
  return cron;
}

describe("a cron expression", () => {
  test.each<[string, keyof Cron, number[]]>([
    ["0 2 * * *", "seconds", [0]],
    ["30 0 2 * * *", "seconds", [30]],
    ["0 2 * * *", "hours", [2]],
    ["*/20 2 * * *", "minutes", [0, 20, 40]],
    ["5-20/5 2 * * *", "minutes", [5, 10, 15, 20]],
    ["5,1,5 2 * * *", "minutes", [1, 5]],
    ["0 22-2 * * *", "hours", [0, 1, 2, 22, 23]],
    ["0 2 1-7 * 6", "days", [1, 2, 3, 4, 5, 6, 7]],
    ["0 2 * JAN,mar *", "months", [1, 3]],
    ["0 2 * 11-2 *", "months", [1, 2, 11, 12]],
    ["0 2 * * 7", "weekdays", [0]],
    ["0 2 * * fri-sun", "weekdays", [0, 5, 6]],
    ["0 2 * * MON-FRI", "weekdays", [1, 2, 3, 4, 5]],
    ["0 2 * * 5-7", "weekdays", [0, 5, 6]],
  ])("%s names the %s %j", (text, field, values) => {
    expect([...parsed(text)[field]].sort((a, b) => a - b)).toEqual(values);
  });

  test.each([
    ["", "five or six fields"],
    ["sometimes", "five or six fields"],
    ["0 2 * *", "five or six fields"],
    ["0 0 2 * * * *", "five or six fields"],
    ["@daily", "five or six fields"],
    ["60 2 * * *", "a minute from 0 to 59"],
    ["0 24 * * *", "an hour from 0 to 23"],
    ["0 2 0 * *", "a day of the month from 1 to 31"],
    ["0 2 L * *", 'found "L"'],
    ["0 2 * 13 *", "a month from 1 to 12"],
    ["0 2 * may-xyz *", "a month from 1 to 12"],
    ["0 2 * * 8", "a day of the week from 0 to 7"],
    ["0 2 * * 6#1", 'found "6#1"'],
    ["*/0 2 * * *", 'found "*/0"'],
    ["5/10 2 * * *", 'found "5/10"'],
    ["1-2-3 2 * * *", 'found "1-2-3"'],
    ["-1 2 * * *", 'found "-1"'],
    ["1, 2 * * *", 'found ""'],
    ["1e1 2 * * *", 'found "1e1"'],
    [`${"0,".repeat(200)}0 2 * * *`, "five or six fields"],
  ])("%j is refused: %s", (text, words) => {
    expect(parseCron(text)).toContain(words);
  });

  test("of any characters is parsed or refused, never thrown at", () => {
    const characters = fc.constantFrom(...Array.from("0123456789*/-,# JANSUNL"));
    fc.assert(
      fc.property(fc.string({ unit: characters, maxLength: 30 }), (text) => {
        const cron = parseCron(text);
        if (typeof cron === "string") expect(cron).toContain("expected");
        else for (const values of Object.values(cron)) expect([...values]).not.toEqual([]);
      }),
    );
  });
});

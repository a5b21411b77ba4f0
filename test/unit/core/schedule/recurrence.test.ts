import { describe, expect, test } from "vitest";
import { Recurrence } from "../../../../agent/core/schedule/recurrence.ts";

const HOUR_MS = 3_600_000;
const short = (instant: number | Date): string =>
  new Date(instant).toISOString().replace(":00.000Z", "");

/** The first `count` instants after a time in UTC. */
function after(cron: string, timezone: string, from: string, count = 1): string[] {
  const recurrence = new Recurrence({ cron, timezone });
  const found: string[] = [];
  for (let now = new Date(`${from}Z`); found.length < count;) {
    const next = recurrence.after(now);
    if (!next) throw new Error("it never comes");
    found.push(short(next));
    now = next;
  }
  return found;
}

function before(cron: string, timezone: string, now: string, hours: number): string[] {
  const recurrence = new Recurrence({ cron, timezone });
  return [...recurrence.before(new Date(`${now}Z`), hours * HOUR_MS)].map(short);
}

describe("the next time", () => {
  test("comes after now, never at it", () => {
    expect(after("0 12 * * *", "UTC", "2026-02-01T11:59:59.999")).toEqual(["2026-02-01T12:00"]);
    expect(after("0 12 * * *", "UTC", "2026-02-01T12:00:00")).toEqual(["2026-02-02T12:00"]);
  });

  test.each([
    // West of Greenwich the local day is the one before, east of it the next.
    ["30 23 * * *", "America/New_York", "2026-02-02T03:00:00", "2026-02-02T04:30"],
    ["30 0 * * *", "Pacific/Auckland", "2026-02-01T11:00:00", "2026-02-01T11:30"],
    ["0 0 29 2 *", "UTC", "2026-02-01T00:00:00", "2028-02-29T00:00"],
  ])("of %s in %s after %s is %s", (cron, timezone, from, expected) => {
    expect(after(cron, timezone, from)).toEqual([expected]);
  });

  test("comes the moment clocks are set forward over it", () => {
    expect(after("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00", 2)).toEqual([
      ...["2026-03-29T01:00", "2026-03-30T00:30"],
    ]);
    // Two times of the skipped hour come as one.
    expect(after("15,45 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00", 2)).toEqual([
      ...["2026-03-29T01:00", "2026-03-30T00:15"],
    ]);
    // Samoa had no 30 December 2011.
    expect(after("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00", 3)).toEqual([
      ...["2011-12-29T22:00", "2011-12-30T10:00", "2011-12-30T22:00"],
    ]);
  });

  test("comes once if clocks are set back and show it twice", () => {
    expect(after("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00", 2)).toEqual([
      ...["2026-10-25T00:30", "2026-10-26T01:30"],
    ]);
  });

  test("of every hour comes in each hour that there is", () => {
    expect(after("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00", 3)).toEqual([
      ...["2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T02:30"],
    ]);
    expect(after("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00", 3)).toEqual([
      ...["2026-03-29T00:30", "2026-03-29T01:30", "2026-03-29T02:30"],
    ]);
  });
});

describe("the last times", () => {
  test("are newest first, up to and with now, within the span", () => {
    expect(before("0 * * * *", "UTC", "2026-02-01T12:00:00", 3)).toEqual([
      ...["2026-02-01T12:00", "2026-02-01T11:00", "2026-02-01T10:00"],
    ]);
    expect(before("0 * * * *", "UTC", "2026-02-01T11:59:59.999", 2)).toEqual([
      ...["2026-02-01T11:00", "2026-02-01T10:00"],
    ]);
    expect(before("0 13 * * *", "UTC", "2026-02-01T12:00:00", 22)).toEqual([]);
  });

  test("go back over midnight and days, there as well", () => {
    expect(before("0 22 * * *", "UTC", "2026-02-03T01:00:00", 49)).toEqual([
      ...["2026-02-02T22:00", "2026-02-01T22:00"],
    ]);
    expect(before("30 23 * * *", "America/New_York", "2026-02-02T05:00:00", 24)).toEqual([
      "2026-02-02T04:30",
    ]);
    expect(before("30 0 * * *", "Pacific/Auckland", "2026-02-01T12:00:00", 24)).toEqual([
      "2026-02-01T11:30",
    ]);
  });

  test("have the moment at which clocks were set forward, and one time that came twice once", () => {
    expect(before("30 2 * * *", "Europe/Berlin", "2026-03-29T02:00:00", 24)).toEqual([
      "2026-03-29T01:00",
    ]);
    expect(before("30 2 * * *", "Europe/Berlin", "2026-10-25T03:00:00", 24)).toEqual([
      "2026-10-25T00:30",
    ]);
  });
});

test("what did not pass its schema throws", () => {
  expect(() => new Recurrence({ cron: "sometimes", timezone: "UTC" })).toThrow(
    "expected a cron expression of five or six fields",
  );
  expect(() => new Recurrence({ cron: "0 2 * * *", timezone: "Mars" })).toThrow(RangeError);
});

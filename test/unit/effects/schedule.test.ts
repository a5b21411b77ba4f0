import fc from "fast-check";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { scheduleOf } from "../../../agent/effects/schedule.ts";
import { failureOf } from "../../support/failure.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Sets the time of day, and nothing else: node-cron looks at the system's clock. */
function at(time: string): void {
  vi.useFakeTimers({ toFake: ["Date"], now: new Date(time) });
  onTestFinished(() => void vi.useRealTimers());
}

/** When a cron expression comes next, as a UTC time. */
function next(cron: string, timezone: string, now: string): string {
  at(now);
  const wait = scheduleOf({ kind: "cron", cron, timezone, jitter: 0 })(0);
  return new Date(Date.parse(now) + wait).toISOString();
}

describe("an interval", () => {
  test("is the wait, with up to its jitter added", () => {
    const schedule = scheduleOf({ kind: "interval", interval: 15 * MINUTE, jitter: 2 * MINUTE });
    expect(schedule(0)).toBe(15 * MINUTE);
    expect(schedule(0.5)).toBe(16 * MINUTE);
    expect(schedule(0.999_999_999)).toBe(17 * MINUTE);
  });

  test("without jitter is always the same", () => {
    const schedule = scheduleOf({ kind: "interval", interval: MINUTE, jitter: 0 });
    expect([0, 0.3, 0.99].map(schedule)).toEqual([MINUTE, MINUTE, MINUTE]);
  });

  test("never leaves its bounds", () => {
    const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    fc.assert(
      fc.property(
        fc.nat({ max: DAY }),
        fc.nat({ max: DAY }),
        random,
        (interval, jitter, chance) => {
          const wait = scheduleOf({ kind: "interval", interval, jitter })(chance);
          expect(Number.isInteger(wait)).toBe(true);
          expect(wait).toBeGreaterThanOrEqual(interval);
          expect(wait).toBeLessThanOrEqual(interval + jitter);
        },
      ),
    );
  });
});

describe("a cron expression", () => {
  test("waits until its next time, and adds its jitter", () => {
    at("2026-01-31T03:10:00.000Z");
    const schedule = scheduleOf({
      ...{ kind: "cron", cron: "0 4 * * *", timezone: "UTC", jitter: 10 * MINUTE },
    });
    expect(schedule(0)).toBe(50 * MINUTE);
    expect(schedule(0.5)).toBe(55 * MINUTE);
    vi.setSystemTime(new Date("2026-01-31T04:00:00.500Z"));
    expect(schedule(0)).toBe(DAY - 500);
  });

  test("may have a field for seconds", () => {
    expect(next("*/20 * * * * *", "UTC", "2026-01-31T03:10:01.000Z")).toBe(
      "2026-01-31T03:10:20.000Z",
    );
  });

  test("counts in its time zone", () => {
    const now = "2026-01-31T00:00:00.000Z";
    expect(next("0 4 * * *", "Europe/Berlin", now)).toBe("2026-01-31T03:00:00.000Z");
    expect(next("0 4 * * *", "America/New_York", now)).toBe("2026-01-31T09:00:00.000Z");
    expect(next("0 4 * * *", "Asia/Kolkata", now)).toBe("2026-01-31T22:30:00.000Z");
  });

  test("follows the change to daylight saving time and back", () => {
    const berlin = (now: string): string => next("0 4 * * *", "Europe/Berlin", now);
    // The clocks go forward on 29 March at 01:00 UTC, and back on 25 October.
    expect(berlin("2026-03-28T12:00:00.000Z")).toBe("2026-03-29T02:00:00.000Z");
    expect(berlin("2026-03-29T12:00:00.000Z")).toBe("2026-03-30T02:00:00.000Z");
    expect(berlin("2026-10-24T12:00:00.000Z")).toBe("2026-10-25T03:00:00.000Z");
    expect(berlin("2026-10-25T12:00:00.000Z")).toBe("2026-10-26T03:00:00.000Z");
  });

  test("in the hour that the change leaves out still comes that week", () => {
    const found = next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00.000Z");
    expect(Date.parse(found)).toBeGreaterThanOrEqual(Date.parse("2026-03-29T00:30:00.000Z"));
    expect(Date.parse(found)).toBeLessThanOrEqual(Date.parse("2026-03-30T00:30:00.000Z"));
  });

  test("of the past moment waits for the next one and not for nothing", () => {
    const found = next("* * * * *", "UTC", "2026-01-31T03:10:00.000Z");
    expect(found).toBe("2026-01-31T03:11:00.000Z");
  });

  test.each([
    ["* * * *", "expected 5 or 6 fields but got 4"],
    ["61 * * * *", "61"],
    ["0 25 * * *", "25"],
    ["0 0 32 * *", "32"],
    ["0 0 30 2 *", "impossible day of month"],
    ["every day", "fields"],
    ["", ""],
  ])("that reads %j is refused, with the reason", (cron, words) => {
    const failure = failureOf(() => scheduleOf({ kind: "cron", cron, timezone: "UTC", jitter: 0 }));
    expect(failure.code).toBe("CONFIG_INVALID");
    expect(failure.message).toContain("poll.cron: ");
    expect(failure.message).toContain(words);
    expect(failure.message).toContain(`found ${JSON.stringify(cron)}`);
  });

  test.each(["Mars/Olympus", "", "Europe", "UTC+25"])(
    "in the time zone %j is refused",
    (timezone) => {
      const failure = failureOf(() =>
        scheduleOf({ kind: "cron", cron: "0 4 * * *", timezone, jitter: 0 }),
      );
      expect(failure.code).toBe("CONFIG_INVALID");
      expect(failure.message).toBe(
        `poll.timezone: expected an IANA time zone, found ${JSON.stringify(timezone)}`,
      );
    },
  );

  test("that comes once in years says how long that is", () => {
    const found = next("0 4 29 2 *", "UTC", "2026-03-01T12:00:00.000Z");
    expect(found).toBe("2028-02-29T04:00:00.000Z");
  });
});

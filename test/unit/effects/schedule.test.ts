import { describe, expect, test } from "vitest";
import { isOpen, type Window } from "../../../agent/effects/schedule.ts";
import { failureOf } from "../../support/failure.ts";

const HOUR_MS = 3_600_000;

function open(changes: Partial<Window>, now: string): boolean {
  const window = { cron: "0 2 * * *", timezone: "UTC", duration: 2 * HOUR_MS, ...changes };
  return isOpen(window, new Date(now));
}

describe("a window from 02:00 for two hours", () => {
  test.each([
    ["01:59:59.999", false],
    ["02:00:00.000", true],
    ["03:00:30.000", true],
    ["03:59:59.999", true],
    ["04:00:00.000", false],
    ["14:00:00.000", false],
  ])("at %s is open: %s", (time, expected) => {
    expect(open({}, `2026-02-01T${time}Z`)).toBe(expected);
  });
});

describe("a window over midnight, on Saturdays from 23:00 for three hours", () => {
  test.each([
    // 2026-02-07 is a Saturday.
    ["2026-02-07T22:59:00Z", false],
    ["2026-02-07T23:00:00Z", true],
    ["2026-02-08T00:00:00Z", true],
    ["2026-02-08T01:59:59Z", true],
    ["2026-02-08T02:00:00Z", false],
    ["2026-02-08T23:30:00Z", false],
    ["2026-02-07T01:00:00Z", false],
  ])("at %s is open: %s", (now, expected) => {
    expect(open({ cron: "0 23 * * 6", duration: 3 * HOUR_MS }, now)).toBe(expected);
  });
});

describe("a window in another time zone", () => {
  test.each([
    // 02:00 in Kolkata is 20:30 the day before.
    ["Asia/Kolkata", "2026-01-31T20:29:59Z", false],
    ["Asia/Kolkata", "2026-01-31T20:30:00Z", true],
    ["Asia/Kolkata", "2026-01-31T22:29:59Z", true],
    ["Asia/Kolkata", "2026-02-01T02:30:00Z", false],
    // 02:00 in New York is 07:00 in winter and 06:00 in summer.
    ["America/New_York", "2026-02-01T06:30:00Z", false],
    ["America/New_York", "2026-02-01T07:00:00Z", true],
    ["America/New_York", "2026-07-01T06:00:00Z", true],
    ["America/New_York", "2026-07-01T08:00:00Z", false],
  ])("%s at %s is open: %s", (timezone, now, expected) => {
    expect(open({ timezone }, now)).toBe(expected);
  });
});

test("a window lasts at most a day", () => {
  const changes = { cron: "0 2 1 * *", duration: 72 * HOUR_MS };
  expect(open(changes, "2026-02-02T01:59:00Z")).toBe(true);
  expect(open(changes, "2026-02-02T02:00:00Z")).toBe(false);
});

test("a window that opens at a second opens", () => {
  expect(open({ cron: "30 0 2 * * *" }, "2026-02-01T02:30:00Z")).toBe(true);
});

describe("a window that is none is refused, by its key", () => {
  test.each<[Partial<Window>, string]>([
    [{ cron: "sometimes" }, "reboot.window.cron: "],
    [{ cron: "0 25 * * *" }, "reboot.window.cron: "],
    [{ timezone: "Mars/Olympus" }, "reboot.window.timezone: expected an IANA time zone"],
  ])("%j", (changes, words) => {
    const failure = failureOf(() => open(changes, "2026-02-01T02:30:00Z"));
    expect(failure.code).toBe("CONFIG_INVALID");
    expect(failure.message).toContain(words);
  });
});

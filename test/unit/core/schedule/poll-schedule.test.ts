import { describe, expect, test } from "vitest";
import { isOpen, nextOpening } from "../../../../agent/core/schedule/window.ts";
import {
  pollSchema,
  pollSettingsOf,
  pollWait,
} from "../../../../agent/core/schedule/poll-schedule.ts";

const NOON = new Date("2026-02-01T12:00:00.000Z");
const MINUTE_MS = 60_000;

test("an interval is waited for, with up to the jitter more", () => {
  const poll = { kind: "interval", interval: 60_000, jitter: 30_000 } as const;
  expect(pollWait(poll, NOON, 0)).toBe(60_000);
  expect(pollWait(poll, NOON, 0.5)).toBe(75_000);
});

test("a cron expression is waited for in its time zone, with up to the jitter more", () => {
  const poll = { kind: "cron", cron: "30 14 * * *", jitter: 30_000 } as const;
  expect(pollWait({ ...poll, timezone: "UTC" }, NOON, 0)).toBe(150 * MINUTE_MS);
  expect(pollWait({ ...poll, timezone: "Europe/Berlin" }, NOON, 0)).toBe(90 * MINUTE_MS);
  expect(pollWait({ ...poll, timezone: "UTC" }, NOON, 0.5)).toBe(150 * MINUTE_MS + 15_000);
});

describe("a poll with the expression of a window comes when the window opens", () => {
  test.each([
    // In the hour that is skipped, in the one that comes twice, on the last day of a month.
    ["30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"],
    ["30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z"],
    ["30 * * * *", "Europe/Berlin", "2026-10-25T00:45:00Z"],
    ["0 3 L * *", "America/New_York", "2026-02-10T00:00:00Z"],
  ])("%s in %s after %s", (cron, timezone, after) => {
    const now = new Date(after);
    const wait = pollWait({ kind: "cron", cron, timezone, jitter: 0 }, now, 0);
    const window = { cron, timezone, duration: MINUTE_MS };
    const at = now.getTime() + wait;
    expect(nextOpening([window], now)).toEqual(new Date(at));
    expect(isOpen([window], new Date(at))).toBe(true);
    expect(isOpen([window], new Date(at - 1))).toBe(false);
  });
});

test("what is absent is filled in", () => {
  expect(pollSettingsOf(pollSchema.parse({}))).toEqual({
    ...{ kind: "interval", interval: 15 * MINUTE_MS, jitter: 2 * MINUTE_MS },
  });
  expect(pollSettingsOf(pollSchema.parse({ cron: "0 2 * * *", jitter: "0s" }))).toEqual({
    ...{ kind: "cron", cron: "0 2 * * *", timezone: "UTC", jitter: 0 },
  });
});

test.each(Object.entries(pollSchema.shape))("%s is described in a sentence", (_, schema) => {
  expect(schema.description).toMatch(/^[A-Z].{20,}\.$/);
});

test("an interval and a cron expression exclude each other, and a time zone needs the latter", () => {
  const issues = (poll: unknown): unknown =>
    pollSchema.safeParse(poll).error?.issues.map(({ message }) => message);
  const [cron, timezone] = ["0 2 * * *", "UTC"];
  expect(issues({ interval: "1h", cron })).toEqual([
    "expected an interval or a cron expression, not both",
  ]);
  expect(issues({ interval: "1h", timezone })).toEqual([
    "expected a time zone only together with a cron expression",
  ]);
  expect(issues({ cron, timezone })).toBeUndefined();
});

describe("what cannot be waited for is refused, by its key", () => {
  test.each([
    [{ cron: "sometimes" }, "cron", "expected a cron expression of five or six fields"],
    [{ cron: "0 25 * * *" }, "cron", "with a valid hour"],
    [{ cron: "0 2 30 2 *" }, "cron", "with a valid day of the month"],
    [{ cron: "0 2 * * *", timezone: "Mars/Olympus" }, "timezone", "expected an IANA time zone"],
    [{ interval: "0s" }, "interval", "expected a duration of at least 1s"],
  ])("%j", (poll, key, words) => {
    const issues = pollSchema.safeParse(poll).error?.issues ?? [];
    expect(issues.map(({ path }) => path)).toEqual([[key]]);
    expect(issues[0]?.message).toContain(words);
  });
});

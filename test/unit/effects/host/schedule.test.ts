import { describe, expect, test } from "vitest";
import { scheduleOf } from "../../../../agent/effects/host/schedule.ts";
import { failureOf } from "../../../support/failure.ts";

test("an interval is waited for, with up to the jitter more", () => {
  const schedule = scheduleOf({ kind: "interval", interval: 60_000, jitter: 30_000 });
  expect(schedule(0)).toBe(60_000);
  expect(schedule(0.5)).toBe(75_000);
});

describe("a cron expression that is none is refused, by its key", () => {
  test.each([
    ["sometimes", "UTC", "poll.cron: "],
    ["0 25 * * *", "UTC", "poll.cron: "],
    ["0 2 * * *", "Mars/Olympus", "poll.timezone: expected an IANA time zone"],
  ])("%s in %s", (cron, timezone, words) => {
    const failure = failureOf(() => scheduleOf({ kind: "cron", cron, timezone, jitter: 0 }));
    expect(failure.code).toBe("CONFIG_INVALID");
    expect(failure.message).toContain(words);
  });
});

import { describe, expect, test } from "vitest";
import { Times, describeSpan } from "../../../../agent/core/text/times.ts";

/** A Tuesday, 14:05 in Berlin. */
const NOW = new Date("2026-12-01T13:05:00Z");
const berlin = new Times({ now: NOW, zone: "Europe/Berlin" });

test.each([
  [0, "0 s"],
  [89_499, "89 s"],
  [90_000, "2 min"],
  [11 * 60_000, "11 min"],
  [89 * 60_000, "89 min"],
  [3 * 3_600_000, "3 hours"],
  [35 * 3_600_000, "35 hours"],
  [2 * 86_400_000, "2 days"],
  [-5_000, "5 s"],
])("%d ms take %j", (ms, text) => {
  expect(describeSpan(ms)).toBe(text);
});

describe("a time in its zone", () => {
  test.each([
    ["2026-12-01T13:00:00Z", "14:00", "14:00 (5 min ago)"],
    ["2026-11-30T23:00:00Z", "00:00", "00:00 (14 hours ago)"],
    ["2026-11-30T22:59:59Z", "yesterday 23:59", "yesterday 23:59 (14 hours ago)"],
    ["2026-12-02T03:00:00Z", "tomorrow 04:00", "tomorrow 04:00 (in 14 hours)"],
    ["2026-12-04T18:00:00Z", "Fri 4 Dec 19:00", "Fri 4 Dec 19:00 (in 3 days)"],
    ["2026-11-01T12:00:00Z", "Sun 1 Nov 13:00", "Sun 1 Nov 13:00"],
    ["2027-01-01T12:00:00Z", "Fri 1 Jan 2027 13:00", "Fri 1 Jan 2027 13:00"],
    ["2026-12-01T13:05:00Z", "14:05", "14:05 (a moment ago)"],
    ["2026-12-01T13:05:02Z", "14:05", "14:05 (now)"],
    ["no time", "no time", "no time"],
  ])("%s is %j, and in full %j", (at, clock, both) => {
    expect([berlin.clock(at), berlin.both(at)]).toEqual([clock, both]);
  });

  test("a day before and a day after are known when clocks change", () => {
    // Clocks were set back at 03:00 on 25 October: that day had 25 hours.
    const times = new Times({ now: new Date("2026-10-25T22:50:00Z"), zone: "Europe/Berlin" });
    expect(times.clock("2026-10-24T21:59:00Z")).toBe("yesterday 23:59");
    expect(times.clock("2026-10-24T22:00:00Z")).toBe("00:00");
    expect(times.clock("2026-10-25T23:00:00Z")).toBe("tomorrow 00:00");
  });

  test("seconds are shown if they are asked for", () => {
    expect(berlin.clockSeconds("2026-12-01T13:00:07.900Z")).toBe("14:00:07");
  });

  test("the times in a message are local, and all else of it stays", () => {
    const message = "the window opens at 2026-12-02T03:00:00.000Z; tried at 2026-12-01T13:00:00Z.";
    expect(berlin.within(message)).toBe("the window opens tomorrow 04:00; tried at 14:00.");
  });

  test("a day has its name", () => {
    expect(berlin.day("2026-11-30T23:00:00Z")).toBe("Tue 1 Dec 2026");
  });
});

describe("exact times", () => {
  const utc = new Times({ now: NOW, zone: "Europe/Berlin", utc: true });

  test("are UTC wherever a time is shown", () => {
    const at = "2026-12-01T13:00:00.000Z";
    expect([utc.clock(at), utc.clockSeconds(at), utc.ago(at), utc.both(at)]).toEqual(
      Array<string>(4).fill("2026-12-01T13:00:00Z"),
    );
  });

  test("keep fractions of a second", () => {
    expect(utc.within("at 2026-12-01T13:00:00.250Z")).toBe("at 2026-12-01T13:00:00.250Z");
  });
});

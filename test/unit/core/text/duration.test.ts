import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  MAX_TIMER_MS,
  durationSchema,
  formatDuration,
  parseDuration,
  positiveDurationSchema,
} from "../../../../agent/core/text/duration.ts";

describe("a duration", () => {
  test.each([
    ["0s", 0],
    ["90s", 90_000],
    ["15m", 900_000],
    ["1h30m", 5_400_000],
    ["2d", 172_800_000],
    ["1d2h3m4s", 93_784_000],
    ["1m1h", 3_660_000],
    ["007s", 7_000],
  ])("%s is read", (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
    expect(durationSchema.parse(text)).toBe(ms);
  });

  test.each([
    ...["", "15", "m", "15 m", " 15m", "15m ", "15m\n", "1.5h", "-1h", "+1h", "1H", "15min"],
    ...["1h30", "1w", "1e3s", "１s", "Infinity", `${"9".repeat(20)}d`, "9007199254740993s"],
  ])("%j is none", (text) => {
    expect(parseDuration(text)).toBeNull();
    expect(durationSchema.safeParse(text).error?.issues).toMatchObject([
      { code: "custom", message: "expected a duration of at most 24d, such as 90s, 15m or 1h30m" },
    ]);
  });

  test("in a setting is at most as long as a timer can wait", () => {
    expect(durationSchema.parse("24d")).toBe(MAX_TIMER_MS);
    expect(MAX_TIMER_MS).toBeLessThan(2 ** 31);
    for (const text of ["24d1s", "25d", "596h31m24s"]) {
      expect(durationSchema.safeParse(text).success).toBe(false);
    }
  });

  test("of nothing is none where something is needed", () => {
    expect(positiveDurationSchema.parse("1s")).toBe(1_000);
    expect(positiveDurationSchema.safeParse("0s").error?.issues).toMatchObject([
      { message: "expected a duration of at least 1s" },
    ]);
    expect(positiveDurationSchema.safeParse("later").success).toBe(false);
  });

  test("that is no text is none", () => {
    for (const value of [15, null, {}, undefined]) {
      expect(durationSchema.safeParse(value).success).toBe(false);
    }
  });
});

describe("a duration for people", () => {
  test.each([
    [0, "0s"],
    [499, "0s"],
    [500, "1s"],
    [45_000, "45s"],
    [59_999, "1m"],
    [60_000, "1m"],
    [61_000, "1m 1s"],
    [3_600_000, "1h"],
    [3_601_000, "1h"],
    [7_500_000, "2h 5m"],
    [86_400_000, "1d"],
    [273_600_000, "3d 4h"],
    [273_659_000, "3d 4h"],
    [-5_000, "0s"],
  ])("%d ms is %s", (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });

  test("has one or two units and is read back to within the smaller one", () => {
    fc.assert(
      fc.property(fc.nat({ max: 10 ** 10 }), (ms) => {
        const text = formatDuration(ms);
        expect(text).toMatch(/^\d+[smhd]( \d+[smh])?$/);
        const back = parseDuration(text.replace(" ", ""));
        const largest = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
        const unit = /[smhd]/.exec(text)?.[0] as keyof typeof largest;
        expect(Math.abs((back ?? NaN) - ms)).toBeLessThan(largest[unit]);
      }),
    );
  });
});

import { describe, expect, test } from "vitest";
import { describeAge } from "../../../../agent/core/text/time-span.ts";

const TIME = "2026-02-01T12:00:00.000Z";

/** How old TIME is, so many milliseconds after it. */
const after = (ms: number): string => describeAge(TIME, new Date(Date.parse(TIME) + ms));

describe("how long ago a time was", () => {
  test.each([
    [0, "now"],
    [59_999, "now"],
    [60_000, "1 min"],
    [12 * 60_000 + 59_999, "12 min"],
    [3_599_999, "59 min"],
    [3_600_000, "1 h"],
    [5.5 * 3_600_000, "5 h"],
    [86_399_999, "23 h"],
    [86_400_000, "1 d"],
    [40.9 * 86_400_000, "40 d"],
  ])("%d ms ago is %s", (ms, text) => {
    expect(after(ms)).toBe(text);
  });

  test.each([
    [-59_999, "now"],
    [-60_000, "in 1 min"],
    [-3_600_000, "in 1 h"],
    [-3 * 86_400_000, "in 3 d"],
  ])("%d ms ago, by a clock that is behind, is %s", (ms, text) => {
    expect(after(ms)).toBe(text);
  });
});

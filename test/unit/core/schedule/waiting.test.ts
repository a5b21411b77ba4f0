import { expect, test } from "vitest";
import {
  WAIT_REASONS,
  allowFetch,
  endOf,
  waitSchema,
  type Wait,
} from "../../../../agent/core/schedule/waiting.ts";

function wait(until: string | null, allowsFetch = true): Wait {
  return { reason: "HELD", message: "held", until, binds: "everyone", allowsFetch };
}

test.each<[string, (string | null)[], string | null]>([
  ["there is none", [], null],
  ["there is one", ["2026-02-01T00:00:00Z"], "2026-02-01T00:00:00Z"],
  [
    "one of them is the last",
    ["2026-02-01T00:00:00Z", "2026-02-03T00:00:00Z"],
    "2026-02-03T00:00:00Z",
  ],
  [
    "the last comes first",
    ["2026-02-03T00:00:00Z", "2026-02-01T00:00:00Z"],
    "2026-02-03T00:00:00Z",
  ],
  [
    "they are written in different ways",
    ["2026-02-01T10:00:00Z", "2026-02-01T09:00:00.500Z"],
    "2026-02-01T10:00:00Z",
  ],
  ["one never ends by itself", ["2026-02-03T00:00:00Z", null], null],
  ["the first never ends by itself", [null, "2026-02-03T00:00:00Z"], null],
])("if %s, waits until %j end at %j", (_, untils, end) => {
  expect(endOf(untils.map((until) => wait(until)))).toBe(end);
});

test("a closure may be fetched if every wait allows it", () => {
  expect(allowFetch([])).toBe(true);
  expect(allowFetch([wait(null), wait(null)])).toBe(true);
  expect(allowFetch([wait(null), wait(null, false)])).toBe(false);
});

test("the codes are those that reports and metrics have had from the beginning", () => {
  expect(WAIT_REASONS).toEqual([
    ...["HELD", "WINDOW_CLOSED", "CONFIRMATION_MISSING", "NOT_BEFORE"],
    ...["ROLLOUT_PENDING", "ROLLOUT_PAUSED", "BARRIER_AHEAD"],
  ]);
});

test("the form of a wait has bounds", () => {
  for (const change of [
    { until: "2026-02-01T00:00:00Z" },
    { binds: "service" },
    { message: "x".repeat(2000) },
  ]) {
    expect(waitSchema.parse({ ...wait(null), ...change })).toEqual({ ...wait(null), ...change });
  }
  for (const change of [
    ...[{ reason: "LAZY" }, { binds: "nobody" }, { until: "soon" }, { extra: 1 }],
    ...[{ message: "x".repeat(2001) }, { allowsFetch: "no" }],
  ]) {
    expect(waitSchema.safeParse({ ...wait(null), ...change }).success).toBe(false);
  }
});

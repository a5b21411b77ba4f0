import { expect, test } from "vitest";
import { countPoll, countersSchema, NO_COUNTS } from "../../../../agent/core/metrics/counters.ts";

test("each poll counts once, and as failed or as an update if it was one", () => {
  expect(NO_COUNTS).toEqual({ polls: 0, pollFailures: 0, updates: 0 });
  const idle = countPoll(NO_COUNTS, { failed: false, updated: false });
  expect(idle).toEqual({ polls: 1, pollFailures: 0, updates: 0 });
  const failed = countPoll(idle, { failed: true, updated: false });
  expect(failed).toEqual({ polls: 2, pollFailures: 1, updates: 0 });
  const both = countPoll(failed, { failed: true, updated: true });
  expect(both).toEqual({ polls: 3, pollFailures: 2, updates: 1 });
});

test("counters are whole numbers from zero on, and nothing else", () => {
  const counts = { polls: 3, pollFailures: 0, updates: 1 };
  expect(countersSchema.parse(counts)).toEqual(counts);
  for (const key of Object.keys(counts)) {
    for (const value of [-1, 0.5, "1", undefined]) {
      expect(countersSchema.safeParse({ ...counts, [key]: value }).success).toBe(false);
    }
  }
  expect(countersSchema.safeParse({ ...counts, more: 1 }).success).toBe(false);
});

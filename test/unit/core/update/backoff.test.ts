import fc from "fast-check";
import { expect, test } from "vitest";
import { backoffMs } from "../../../../agent/core/update/backoff.ts";

const LIMITS = { base: 60_000, max: 6 * 3_600_000 };

test("the wait doubles from the base", () => {
  const waits = [1, 2, 3, 4].map((attempts) => backoffMs(attempts, LIMITS, 0.5));
  expect(waits).toEqual([60_000, 120_000, 240_000, 480_000]);
});

test("the wait stops growing at its limit, however many attempts there were", () => {
  for (const attempts of [10, 100, 10_000, Number.MAX_SAFE_INTEGER]) {
    expect(backoffMs(attempts, LIMITS, 0.5)).toBe(LIMITS.max);
  }
});

test("the wait varies by a fifth to both sides", () => {
  expect(backoffMs(1, LIMITS, 0)).toBe(48_000);
  expect(backoffMs(1, LIMITS, 1)).toBe(72_000);
});

test("the wait is a whole number of milliseconds within its bounds, always", () => {
  const limits = fc.record({ base: fc.nat({ max: 10 ** 7 }), max: fc.nat({ max: 10 ** 9 }) });
  const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  fc.assert(
    fc.property(fc.integer({ min: 1 }), limits, random, (attempts, { base, max }, chance) => {
      const wait = backoffMs(attempts, { base, max }, chance);
      expect(Number.isInteger(wait)).toBe(true);
      expect(wait).toBeGreaterThanOrEqual(Math.floor(Math.min(base, max) * 0.8));
      expect(wait).toBeLessThanOrEqual(Math.ceil(max * 1.2));
    }),
  );
});

test("the wait never shrinks from one attempt to the next, chance apart", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 60 }), (attempts) => {
      expect(backoffMs(attempts + 1, LIMITS, 0.5)).toBeGreaterThanOrEqual(
        backoffMs(attempts, LIMITS, 0.5),
      );
    }),
  );
});

import { expect, test } from "vitest";
import { Pace } from "../../../../agent/core/transfer/pace.ts";

const MIB = 1024 ** 2;

/** The rate after samples, each so many MiB at so many seconds. */
function rateOf(samples: readonly (readonly [number, number])[]): number | null {
  const pace = new Pace();
  let rate: number | null = null;
  for (const [mib, seconds] of samples) {
    pace.hear(mib * MIB, seconds * 1000);
    rate = pace.rate(mib * MIB, seconds * 1000);
  }
  return rate === null ? null : rate / MIB;
}

test("a rate is known after a second", () => {
  expect(rateOf([[0, 0], [1, 0.9]])).toBeNull(); // prettier-ignore
  expect(rateOf([[0, 0], [24, 2]])).toBe(12); // prettier-ignore
});

test("a rate is that of the last ten seconds", () => {
  const slowThenFast = Array.from({ length: 41 }, (_, s) => [s < 20 ? s : 20 + (s - 20) * 5, s]);
  expect(rateOf(slowThenFast as [number, number][])).toBe(5);
});

test("less than before begins anew", () => {
  expect(rateOf([[50, 0], [60, 2], [0, 3], [8, 5]])).toBe(4); // prettier-ignore
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { inCalls } from "../../../../agent/effects/nix/nix-environment.ts";

/** Half of what Linux takes where the stack may be 8 MiB (execve(2)). */
const MOST = 1024 * 1024;

describe("the paths of calls", () => {
  test("are all paths, in their order, and no call is longer than the kernel takes", () => {
    const paths = fc.array(fc.string({ minLength: 1, maxLength: 4096 }), { maxLength: 2000 });
    fc.assert(
      fc.property(paths, (all) => {
        const calls = inCalls(all);
        expect(calls.flat()).toEqual(all);
        for (const call of calls) {
          const bytes = call.reduce((sum, path) => sum + Buffer.byteLength(path) + 9, 0);
          expect(call.length === 1 || bytes <= MOST).toBe(true);
          expect(call.length).toBeGreaterThan(0);
        }
      }),
      { numRuns: 20 },
    );
  });

  test("are few: 10,000 usual store paths come in one call", () => {
    const paths = Array.from(
      { length: 10_000 },
      (_, at) => `/nix/store/${"a".repeat(32)}-unit-${at}`,
    );
    expect(inCalls(paths)).toHaveLength(1);
    expect(inCalls([])).toEqual([]);
  });
});

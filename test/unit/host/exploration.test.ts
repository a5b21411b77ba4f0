import { describe, expect, test } from "vitest";
import { explore, FIRST_RELEASES } from "../../support/exploration.ts";

/** Set it for a longer look; each action more takes about twenty times as long. */
const DEPTH = Number(process.env["EXPLORATION_DEPTH"] ?? 2);

describe(`whatever happens to a host in ${DEPTH} steps, with the agent ended after any effect`, () => {
  test.each(FIRST_RELEASES)(
    "it can go back, and gets to the next release: $nature, by $mode",
    async (first) => {
      const found = await explore(first, DEPTH);
      expect(found.violations).toEqual([]);
      expect(found.states).toBeGreaterThan(100);
    },
    3_600_000,
  );
});

import { describe, expect, inject, test } from "vitest";
import { SCENARIOS, createHostFor, type ScenarioKey } from "../kill/support/scenario.ts";
import { applyUntilDone, expectEnd } from "./support/going-on.ts";
import { valueIn } from "./support/world.ts";
import { join } from "node:path";

/** States in which a version is killed, by what it is in the middle of. */
const STATES: readonly (readonly [ScenarioKey, readonly string[]])[] = [
  ["good", ["Candidate", "Fetching", "Imported", "Staged", "Activating", "Soaking"]],
  ["good", ["Verifying", "Committing", "Committed"]],
  ["unhealthy", ["RollingBack", "RolledBack"]],
  ["rollback", ["Reverting"]],
];

for (const pair of inject("compatibility").pairs) {
  describe(`killed under ${pair.from.name}, going on with ${pair.to.name}`, () => {
    for (const [key, states] of STATES) {
      // Only the later version has this state.
      const known = states.filter((state) => state !== "Soaking" || pair.from.name === "later");
      test.concurrent.each(known)(`in %s, ${SCENARIOS[key].name}`, async (state) => {
        const scenario = SCENARIOS[key];
        const host = await createHostFor(pair, scenario);
        try {
          const killed = await host.run(scenario.command, {
            bundle: pair.from.bundle,
            crash: { CRASH_STATE_REACHED: state },
          });
          expect(killed.signal, killed.stderr).toBe("SIGKILL");
          const before = await valueIn(join(host.state, "state.json"));
          expect(before["state"]).toMatchObject({ name: state });
          await expectEnd(host, pair, key === "good" ? "new" : "denied");
        } finally {
          await host.remove();
        }
      });
    }

    test.concurrent("at rest after an update, and after a way back", async () => {
      for (const key of ["good", "unhealthy"] as const) {
        const host = await createHostFor(pair, SCENARIOS[key]);
        try {
          await applyUntilDone(host, pair.from);
          await expectEnd(host, pair, key === "good" ? "new" : "denied");
        } finally {
          await host.remove();
        }
      }
    });
  });
}

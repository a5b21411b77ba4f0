import { inject } from "vitest";
import { LOSSES, LOST_FILES, type Crash } from "./support/crash.ts";
import { randomFor, surviveEach } from "./support/runs.ts";
import { afterImport, isBetween, SCENARIOS, type ScenarioKey } from "./support/scenario.ts";
import { pick } from "./support/seeded.ts";

const RUNS = 32;

const { points, everyPoint } = inject("kill");
const random = randomFor("losses");
const keys = ["good", "boot", "test", "switchFails", "unhealthy", "unhealthyTest"] as const;

/**
 * With `state.json` the agent loses the way back, and that a release was not through:
 *
 * - `unhealthy`: the next agent takes the bad system, which runs, for the one to go back
 *   to, and "rolls back" to it; in mode test it is adopted without a look at its health.
 * - `good`, `boot`: between `nix-env --set` and `switch-to-configuration boot`, the release
 *   is adopted with the old boot default; later, with root `current` naming the old
 *   system, and in mode boot without the reboot that it waits for.
 * - `test`: it is adopted with root `current` naming the old system.
 */
function isKnown({ scenario, at, loss }: Crash): boolean {
  if (loss?.file !== "state.json") return false;
  const isWithin = (key: ScenarioKey, first: RegExp, last: RegExp): boolean =>
    scenario === SCENARIOS[key] && isBetween(points[key], at, first, last);
  const tested = /^spawn switch-to-configuration test of system 2, in the middle \[/;
  const goneBack = /^spawn switch-to-configuration .* of system 1, in the middle, both killed/;
  const profileSet = /^spawn nix-env --set, in the middle \[/;
  const rooted = /^rename gcroots\/nixos-pull\/current/;
  // Killed along, these have done nothing yet; and this one goes on and does it all.
  const isUntouched =
    /^spawn (switch-to-configuration test of system 2|nix-env --set), in the middle, both/.test(at);
  const isDone = /^spawn switch-to-configuration .* of system 1, in the middle \[/.test(at);
  return (
    !isUntouched &&
    !isDone &&
    (isWithin("unhealthy", tested, goneBack) ||
      isWithin("unhealthyTest", tested, goneBack) ||
      isWithin("good", profileSet, rooted) ||
      isWithin("boot", profileSet, /^/) ||
      isWithin("test", tested, rooted))
  );
}

surviveEach(
  Array.from({ length: everyPoint ? 4 * RUNS : RUNS }, (): Crash => {
    const key: ScenarioKey = pick(keys, random);
    const among = key === "good" ? points[key] : afterImport(points[key]);
    return {
      scenario: SCENARIOS[key],
      at: pick(among, random),
      loss: { file: pick(LOST_FILES, random), how: pick(LOSSES, random) },
      replays: random() < 0.5,
    };
  }),
  isKnown,
);

import { inject } from "vitest";
import { LOSSES, LOST_FILES, type Crash } from "./support/crash.ts";
import { randomFor, surviveEach } from "./support/runs.ts";
import { afterImport, SCENARIOS, type ScenarioKey } from "./support/scenario.ts";
import { pick } from "./support/seeded.ts";

const RUNS = 32;

const { points, everyPoint } = inject("kill");
const random = randomFor("twice");
const keys = ["good", "boot", "test", "switchFails", "unhealthy", "unhealthyTest"] as const;

surviveEach(
  Array.from({ length: everyPoint ? 4 * RUNS : RUNS }, (): Crash => {
    const key: ScenarioKey = pick(keys, random);
    const loses = random() < 0.25;
    return {
      scenario: SCENARIOS[key],
      at: pick(afterImport(points[key]), random),
      againAt: 1 + Math.floor(random() * 60),
      collectsGarbage: random() < 0.2,
      ...(loses && { loss: { file: pick(LOST_FILES, random), how: pick(LOSSES, random) } }),
    };
  }),
);

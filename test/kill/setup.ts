import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { removeTree } from "../support/temporary.ts";
import { recordPoints, SCENARIOS, type ScenarioKey } from "./support/scenario.ts";
import { createWorld, type World } from "./support/world.ts";

/** What every file of the suite is given. */
export interface KillContext {
  readonly world: World;
  /** Names of the points that each scenario passes, in order. */
  readonly points: Readonly<Record<ScenarioKey, readonly string[]>>;
  /** Whether every point is a run, or only the boundaries and a sample of the others. */
  readonly everyPoint: boolean;
}

declare module "vitest" {
  export interface ProvidedContext {
    kill: KillContext;
  }
}

/** One file for all workers, to which each run, and each kill during a recovery, adds a line. */
export const COUNT_FILE = "runs";

/**
 * Publishes, installs and records once for all files. KILL_SEED repeats the choices of an
 * earlier run; KILL_EVERY_POINT=1 leaves none out.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const seed = Number(process.env["KILL_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  const directory = await mkdtemp(join(tmpdir(), "nixos-pull-kill-"));
  const world = await createWorld(directory, seed);
  const points: Partial<Record<ScenarioKey, readonly string[]>> = {};
  for (const [key, scenario] of Object.entries(SCENARIOS)) {
    points[key as ScenarioKey] = await recordPoints(world, scenario);
  }
  const everyPoint = process.env["KILL_EVERY_POINT"] === "1";
  project.provide("kill", { world, points: points as KillContext["points"], everyPoint });
  const started = performance.now();
  const counts = Object.entries(points).map(([key, names]) => `${key} ${names.length}`);
  console.log(`kill: seed ${seed}; points: ${counts.join(", ")}`);
  return async () => {
    const text = await readFile(join(directory, COUNT_FILE), "utf8").catch(() => "");
    const lines = text.split("\n").filter((line) => line !== "");
    const runs = lines.filter((line) => line === "run").length;
    const seconds = Math.round((performance.now() - started) / 1000);
    console.log(`kill: ${runs} runs with ${lines.length} kills in ${seconds} s, seed ${seed}`);
    await removeTree(directory);
  };
}

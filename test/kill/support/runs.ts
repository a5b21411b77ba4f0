import { appendFile } from "node:fs/promises";
import { join } from "node:path";
import { inject, test } from "vitest";
import { COUNT_FILE } from "../setup.ts";
import { survive, type Crash } from "./crash.ts";
import { afterImport, isBoundary, SCENARIOS, type ScenarioKey } from "./scenario.ts";
import { seeded } from "./seeded.ts";

/** Of the points that are no boundaries, how many are runs where not all are. */
const SAMPLE = 0.1;

/** A numbers source of one file's own, from the seed of the whole run. */
export function randomFor(file: string): () => number {
  const { seed } = inject("kill").world;
  return seeded(Buffer.from(file).reduce((sum, byte) => Math.imul(sum, 31) + byte, seed));
}

/** A kill at each boundary of a scenario and at some of its other points, or at all. */
export function killsDuring(
  key: ScenarioKey,
  random: () => number,
  { from = "the start" }: { from?: "the start" | "import" } = {},
): Crash[] {
  const { points, everyPoint } = inject("kill");
  const scenario = SCENARIOS[key];
  return (from === "import" ? afterImport(points[key]) : points[key])
    .filter((point) => {
      const isSampled = random() < SAMPLE;
      return everyPoint || isBoundary(point) || isSampled;
    })
    .map((at) => ({ scenario, at, collectsGarbage: random() < 0.1 }));
}

/** Why a run fails today, where it does; null elsewhere. */
export type KnownDefect = (crash: Crash) => string | null;

/** Defines a test for each run. */
export function surviveEach(crashes: readonly Crash[], defectOf: KnownDefect = () => null): void {
  const { world } = inject("kill");
  for (const crash of crashes) {
    const define = defectOf(crash) === null ? test.concurrent : test.concurrent.fails;
    define(titleOf(crash), async () => {
      const kills = await survive(world, crash);
      await appendFile(join(world.directory, COUNT_FILE), `${kills}\n`);
    });
  }
}

function titleOf({ scenario, at, loss, againAt, collectsGarbage, replays }: Crash): string {
  return [
    `${scenario.name}: ${at}`,
    ...(loss ? [`${loss.file} ${loss.how}`] : []),
    ...(replays ? ["an old mirror answers"] : []),
    ...(againAt === undefined ? [] : [`then at point ${againAt}`]),
    ...(collectsGarbage ? ["garbage collected"] : []),
  ].join("; ");
}

import { appendFile } from "node:fs/promises";
import { join } from "node:path";
import { inject, test } from "vitest";
import { COUNT_FILE } from "../setup.ts";
import { survive, type Crash } from "./crash.ts";
import { afterImport, isBoundary, isQuestion, SCENARIOS, type ScenarioKey } from "./scenario.ts";
import { seeded } from "./seeded.ts";

/** Of the points that are no boundaries, how many are runs where not all are. */
const SAMPLE = 0.06;

/** A numbers source of one file's own, from the seed of the whole run. */
export function randomFor(file: string): () => number {
  const { seed } = inject("kill").world;
  return seeded(Buffer.from(file).reduce((sum, byte) => Math.imul(sum, 31) + byte, seed));
}

/** A kill at each boundary of a scenario and at some of its other points, or at all. */
export function killsDuring(key: ScenarioKey, random: () => number): Crash[] {
  const { points, everyPoint } = inject("kill");
  return points[key]
    .filter((point) => {
      const isSampled = random() < SAMPLE;
      return everyPoint || isBoundary(point) || isSampled;
    })
    .map((at) => crashAt(key, at, random));
}

/**
 * The same for a scenario that is like another one until the closure is in the store;
 * where not every point is a run, what only asks a program is left out too.
 */
export function killsAfterImport(key: ScenarioKey, random: () => number): Crash[] {
  const { points, everyPoint } = inject("kill");
  return afterImport(points[key])
    .filter((point) => {
      const isSampled = random() < SAMPLE;
      return everyPoint || (isBoundary(point) && !isQuestion(point)) || isSampled;
    })
    .map((at) => crashAt(key, at, random));
}

function crashAt(key: ScenarioKey, at: string, random: () => number): Crash {
  return { scenario: SCENARIOS[key], at, collectsGarbage: random() < 0.1 };
}

/** Whether a run fails today, because of a defect that is described where this is defined. */
export type IsKnown = (crash: Crash) => boolean;

/** Defines a test for each run. */
export function surviveEach(crashes: readonly Crash[], isKnown: IsKnown = () => false): void {
  const { world } = inject("kill");
  for (const crash of crashes) {
    const define = isKnown(crash) ? test.concurrent.fails : test.concurrent;
    define(titleOf(crash), async () => {
      // A known defect is a run too.
      const kills = await survive(world, crash).finally(() => count(world.directory));
      if (kills > 1) await appendFile(join(world.directory, COUNT_FILE), "again\n");
    });
  }
}

async function count(directory: string): Promise<void> {
  await appendFile(join(directory, COUNT_FILE), "run\n");
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

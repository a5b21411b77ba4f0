import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ActivationMode } from "../../../agent/core/formats/manifest.ts";
import { createSimulatedHost, type Defect, type SimulatedHost } from "./simulated-host.ts";
import type { World } from "./world.ts";

/** What an agent is killed in the middle of. */
export interface Scenario {
  readonly name: string;
  readonly command: "apply" | "rollback";
  readonly mode: ActivationMode;
  readonly defect: Defect;
}

const apply = (name: string, mode: ActivationMode, defect: Defect): Scenario => ({
  name,
  command: "apply",
  mode,
  defect,
});

export const SCENARIOS = {
  good: apply("a good release, switch", "switch", "none"),
  boot: apply("a good release, boot", "boot", "none"),
  test: apply("a good release, test", "test", "none"),
  switchFails: apply("a release whose switch fails", "switch", "switch fails"),
  unhealthy: apply("an unhealthy release, switch", "switch", "unhealthy"),
  unhealthyTest: apply("an unhealthy release, test", "test", "unhealthy"),
  rollback: { name: "a rollback by hand", command: "rollback", mode: "switch", defect: "none" },
} as const satisfies Record<string, Scenario>;
export type ScenarioKey = keyof typeof SCENARIOS;

export function createHostFor(world: World, scenario: Scenario): Promise<SimulatedHost> {
  return createSimulatedHost(world, scenario.command === "rollback" ? "new" : "old", scenario);
}

/** Names of all points that a run of the scenario passes, in order. */
export async function recordPoints(world: World, scenario: Scenario): Promise<string[]> {
  const host = await createHostFor(world, scenario);
  try {
    const record = join(host.root, "points");
    await host.run(scenario.command, { crash: { CRASH_RECORD: record } });
    const { misordered } = await host.observe();
    if (misordered.length > 0) throw new Error(misordered.join("\n"));
    return (await readFile(record, "utf8")).trim().split("\n");
  } finally {
    await host.remove();
  }
}

/** Transitions of the state machine and what has to do with other programs. */
export function isBoundary(point: string): boolean {
  return /^(rename state\.json|spawn) /.test(point);
}

/** What asks a program something, and changes nothing. */
export function isQuestion(point: string): boolean {
  return /^spawn (switch-to-configuration (usage|check)|flock|nix-store|sh)/.test(point);
}

/** What comes after the closure is in the store, where scenarios begin to differ. */
export function afterImport(points: readonly string[]): readonly string[] {
  return points.slice(points.findIndex((point) => point.startsWith("rename state.json (Staged)")));
}

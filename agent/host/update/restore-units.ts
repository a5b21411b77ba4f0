import type { Baseline } from "../../core/update/states.ts";
import { missingUnits } from "../../core/update/unit-states.ts";
import type { AgentTools } from "../agent-tools.ts";

/** What restoring units takes. */
export type UnitTools = Pick<AgentTools, "services" | "log">;

/**
 * Starts the units that were active before and are not now: a switch back compares only what is
 * active, and so forgets instances and units that a person started. Gives those that do not
 * come back.
 */
export async function restoreUnits(
  { activeUnits = [] }: Pick<Baseline, "activeUnits">,
  { services, log }: UnitTools,
): Promise<string[]> {
  const missing = async (): Promise<string[]> =>
    activeUnits.length === 0
      ? []
      : missingUnits({ wereActive: activeUnits, jobs: [] }, await services.unitStates(activeUnits));
  const before = await missing();
  if (before.length === 0) return [];
  log.info(`starting units that were active before: ${before.join(", ")}`);
  await services.startUnits(before);
  return missing();
}

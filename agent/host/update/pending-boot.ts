import type { PendingReboot } from "../../core/update/record.ts";
import type { AgentTools } from "../agent-tools.ts";

/** What it takes to see what others did to a boot that is pending. */
export type PendingBootTools = Pick<AgentTools, "store">;

/**
 * Why the next boot would not bring the system that is pending, or must not, in words: a person
 * made another one the boot default, or deleted the trial's generation, and with that its entry as
 * soon as an installer runs. Null if nothing speaks against it, or the boot leads back.
 */
export async function whyTaken(
  { release, baseline, wayBack, trial = false }: PendingReboot,
  tools: PendingBootTools,
): Promise<string | null> {
  if (wayBack) return null;
  const profile = await tools.store.profileToplevel();
  if (profile !== null && profile !== release.toplevel && profile !== baseline.profile) {
    return `somebody made ${profile} the boot default`;
  }
  return trial && !(await hasGeneration(release.toplevel, tools))
    ? `somebody deleted the generation of ${release.toplevel}`
    : null;
}

/** Whether the profile has a generation of a system: no boot entry stays without one. */
export async function hasGeneration(
  toplevel: string,
  { store }: PendingBootTools,
): Promise<boolean> {
  const { staying } = await store.splitGenerations(Number.POSITIVE_INFINITY);
  return staying.includes(toplevel);
}

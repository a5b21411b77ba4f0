import type { Baseline } from "../../core/update/states.ts";
import type { AgentTools } from "../agent-tools.ts";

/**
 * Points the profile at what it was. Somebody may have deleted old generations meanwhile; a root
 * holds the system itself, which then gets a generation of its own. Throws PROFILE_FAILED,
 * INTERRUPTED.
 */
export async function restoreProfile(
  { profile, generation }: Pick<Baseline, "profile" | "generation">,
  store: AgentTools["store"],
): Promise<void> {
  const found = generation === null ? null : await store.findGeneration(generation);
  if (profile === null || found?.toplevel === profile) await store.restoreProfile(generation);
  else await store.setProfile(profile);
}

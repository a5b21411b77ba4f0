import { PullError } from "../core/errors.ts";
import type { Release } from "../core/formats/manifest.ts";
import type { Observation } from "../core/update/observation.ts";
import type { AgentTools } from "./agent-tools.ts";

/** What observing takes. */
export type ObserveTools = Pick<AgentTools, "store" | "systems">;

/**
 * What the host is at this moment. If a specialisation runs, its system is given as the running
 * one: that of the profile, the booted one, or one of `others`.
 */
export async function observe(
  { store, systems }: ObserveTools,
  ...others: readonly (string | null | undefined)[]
): Promise<Observation> {
  const [profile, running, booted] = await Promise.all([
    store.profileToplevel(),
    store.runningToplevel(),
    store.bootedToplevel(),
  ]);
  const parents = new Set([...others, profile, booted]);
  if (running !== null && !parents.has(running)) {
    for (const parent of parents) {
      for (const [name, toplevel] of parent ? await systems.specialisations(parent) : []) {
        if (toplevel !== running) continue;
        return { profile, running: parent ?? null, booted, specialisation: name };
      }
    }
  }
  return { profile, running, booted };
}

/**
 * The toplevel that is activated for a release: the system's, or that of its specialisation.
 * Throws SPECIALISATION_MISSING.
 */
export async function activeToplevel(
  { toplevel, specialisation }: Pick<Release, "toplevel" | "specialisation">,
  { systems }: Pick<AgentTools, "systems">,
): Promise<string> {
  if (specialisation === undefined) return toplevel;
  const all = await systems.specialisations(toplevel);
  const found = all.get(specialisation);
  if (found !== undefined) return found;
  const names = [...all.keys()].join(", ");
  throw new PullError(
    "SPECIALISATION_MISSING",
    `${toplevel}: expected a specialisation ${specialisation}, found ${names === "" ? "none" : names}`,
  );
}

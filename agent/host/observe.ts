import type { Observation } from "../core/update/observation.ts";
import type { NixStore } from "../core/ports.ts";

/** What the host is at this moment. */
export async function observe(
  store: Pick<NixStore, "profileToplevel" | "runningToplevel" | "bootedToplevel">,
): Promise<Observation> {
  const [profile, running, booted] = await Promise.all([
    store.profileToplevel(),
    store.runningToplevel(),
    store.bootedToplevel(),
  ]);
  return { profile, running, booted };
}

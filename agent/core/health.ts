import { changesRunningSystem, setsProfile } from "./activation.ts";
import type { Release } from "./manifest.ts";
import type { Observation } from "./plan.ts";

/**
 * Whether the host is what was activated: null, or what is wrong in words. The running
 * system is not looked at where it cannot be seen or a reboot is still to come.
 */
export function checkHealth(
  release: Release,
  host: Observation,
  rebootNeeded: boolean,
): string | null {
  if (setsProfile(release.mode) && host.profile !== release.toplevel) {
    return `the system profile: expected ${release.toplevel}, found ${host.profile ?? "nothing"}`;
  }
  const shown = changesRunningSystem(release.mode) && host.running !== null && !rebootNeeded;
  if (shown && host.running !== release.toplevel) {
    return `the running system: expected ${release.toplevel}, found ${host.running}`;
  }
  return null;
}

import * as z from "zod";
import { changesRunningSystem, setsProfile } from "./activation.ts";
import type { Observation } from "./observation.ts";
import type { AgentRecord } from "./record.ts";
import type { Open } from "../formats/compatibility.ts";
import { storePathSchema } from "../formats/store-path.ts";

/**
 * `profile`: the boot default is another system, as after `nixos-rebuild switch` or `boot`.
 * `running`: another system runs, as after `nixos-rebuild test`. `booted`: another one was
 * booted than the boot default: chosen in the boot menu, or by the boot loader itself.
 */
export const DRIFTS = ["profile", "running", "booted"] as const;

/** How a host differs from the release that it committed last, through no act of the agent. */
export const driftSchema = z.strictObject({
  what: z.enum(DRIFTS),
  expected: storePathSchema,
  found: storePathSchema.nullable(),
});
export type Drift = Readonly<z.infer<typeof driftSchema>>;

/**
 * What differs on a host that is at rest. Null if nothing differs, if nothing was committed yet,
 * or if it cannot be seen.
 */
export function driftOf(
  { committed, pendingReboot }: Pick<AgentRecord, "committed" | "pendingReboot">,
  host: Observation,
): Drift | null {
  if (committed === null) return null;
  const { toplevel: expected, mode } = committed;
  if (setsProfile(mode) && host.profile !== expected) {
    return { what: "profile", expected, found: host.profile };
  }
  const { running, booted = null } = host;
  if (!changesRunningSystem(mode) || running === null || running === expected) return null;
  if (pendingReboot?.release.toplevel === expected && !pendingReboot.wayBack) return null;
  // It was switched to, and waits for the boot that tries it.
  if (pendingReboot?.trial && pendingReboot.release.toplevel === running) return null;
  return { what: running === booted ? "booted" : "running", expected, found: running };
}

/** Says for people how a host drifted. */
export function describeDrift({
  what,
  expected,
  found,
}: Omit<Drift, "what"> & { what: Open<Drift["what"]> }): string {
  const is = found ?? "nothing";
  switch (what) {
    case "profile":
      return `the boot default is ${is} and not ${expected}`;
    case "running":
      return `${is} runs and not ${expected}`;
    case "booted":
      return `${is} was booted and not ${expected}`;
    default:
      // Another version's, in a report.
      return `${what}: expected ${expected}, found ${is}`;
  }
}

import { changesRunningSystem } from "../../core/update/activation.ts";
import type { StateOf } from "../../core/update/states.ts";
import type { AgentTools } from "../agent-tools.ts";
import { observe } from "../observe.ts";
import { wasCutOff } from "./cut-off.ts";
import type { Happening } from "./happening.ts";

/** What it takes to see what a person did. */
export type HandMadeTools = Pick<
  AgentTools,
  "store" | "systems" | "services" | "settings" | "clock"
>;

/**
 * What a release that is judged leads to if somebody switched to another system meanwhile; null
 * if nobody did. The drift policy decides: the host is left as it is until a person or another
 * release comes, or the release is activated again at the next poll.
 */
export async function changedByHand(
  { release, afterBoot, ...state }: StateOf<"Verifying">,
  tools: HandMadeTools,
): Promise<Happening | null> {
  const { services, settings, clock } = tools;
  // What was only tried or only staged does not run anyway.
  if (!afterBoot && !changesRunningSystem(release.mode)) return null;
  const { running, booted = null, specialisation } = await observe(tools, release.toplevel);
  if (running === null) return null;
  // A boot starts the system itself.
  const isWanted = afterBoot || specialisation === release.specialisation;
  if (running === release.toplevel && isWanted) return null;
  // A boot of another system is no act of a person, as far as is known.
  const isSameBoot = afterBoot
    ? booted === release.toplevel
    : !(await wasCutOff(state, { services }));
  if (!isSameBoot) return null;
  const isKept = settings.drift === "keep";
  const system =
    specialisation === undefined ? running : `${running}, specialisation ${specialisation},`;
  const what = `somebody switched to ${system} while release ${release.sequence} was judged`;
  const message = isKept
    ? `${what}; this host is left as it is`
    : `${what}; the release is activated again`;
  return {
    ...{ type: "ChangedByHand", reason: { code: "CHANGED_BY_HAND", message } },
    retryAt: clock.now().toISOString(),
    ...(isKept && { gaveUp: true }),
  };
}

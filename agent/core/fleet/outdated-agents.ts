import { lackedOf } from "../formats/compatibility.ts";
import {
  describePosition,
  type ManifestFrame,
  type SupportedRelease,
} from "../formats/manifest.ts";
import type { Report } from "../formats/report.ts";
import { placeOf } from "../release/release-history.ts";

/** A host whose agent, by its last report, lacks what a release requires. */
export interface OutdatedAgent {
  readonly hostname: string;
  readonly agentVersion: string;
  readonly lacks: readonly string[];
  /** The older release that it becomes first, and which brings it a newer agent; null for none. */
  readonly first: SupportedRelease | null;
}

/** Whether the agent that reported can follow a release; null if it can. */
export function outdatedAgent(
  { requires, supported = [] }: Pick<ManifestFrame, "requires" | "supported">,
  { hostname, agentVersion, features = [], release }: Report,
): OutdatedAgent | null {
  const lacks = lackedOf(requires, features);
  if (lacks.length === 0) return null;
  const way = supported.find((it) => lackedOf(it.requires, features).length === 0) ?? null;
  // It became that already, and has no newer agent by it.
  const isPast =
    way !== null &&
    release !== null &&
    // A report has no epoch of its release: within one, the numbers ascend.
    (release.digest === way.digest || (way.epoch === undefined && release.sequence > way.sequence));
  return { hostname, agentVersion, lacks, first: isPast ? null : way };
}

/** What becomes of such a host, in words. */
export function describeOutdated({ agentVersion, lacks, first }: OutdatedAgent): string {
  const what = `its agent ${agentVersion} lacks ${lacks.slice(0, 5).join(", ")}`;
  return first
    ? `${what}; it becomes release ${describePosition(placeOf(first))} first`
    : `${what}, and no supported release leads on from its own: it cannot follow`;
}

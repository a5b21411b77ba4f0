import { PullError } from "../../core/errors.ts";
import {
  MAX_STAGES,
  activationOf,
  comparePositions,
  entryOf,
  positionOf,
  systemOf,
  type HostEntry,
  type Manifest,
  type SignedManifest,
  type Stage,
} from "../../core/formats/manifest.ts";
import { findRelease } from "../mirror/retained-releases.ts";

/**
 * What the next release does about barriers: it keeps those of the current release, drops them,
 * or makes an earlier release of the channel one more.
 */
export type BarrierRequest =
  | { readonly kind: "keep" }
  | { readonly kind: "drop" }
  | { readonly kind: "add"; readonly sequence: number };

/**
 * The retained release that is to become a barrier; null if none is asked for. Throws
 * PUBLISH_FAILED if it is not there, or lies before the barrier that there is.
 */
export function expectBarrier(
  request: BarrierRequest,
  current: Manifest | null,
  retained: readonly SignedManifest[],
): SignedManifest | null {
  if (request.kind !== "add") return null;
  const before = current?.barrier;
  const wanted = { epoch: current?.epoch?.number ?? 0, sequence: request.sequence };
  const found = findRelease(retained, wanted, "--barrier");
  const position = positionOf(found.manifest);
  if (
    before &&
    comparePositions(position, { epoch: before.epoch ?? 0, sequence: before.sequence }) < 0
  ) {
    throw new PullError(
      "PUBLISH_FAILED",
      `--barrier: expected release ${before.sequence}, which is a barrier already, or a later ` +
        `release, found ${request.sequence}`,
    );
  }
  return found;
}

/**
 * The barrier of a new release, and its hosts with the systems that they have to switch to
 * before (`through`). `retained` are the releases that may become a barrier. Throws
 * PUBLISH_FAILED.
 */
export function withBarrier(
  request: BarrierRequest,
  hosts: Manifest["hosts"],
  current: Manifest | null,
  retained: readonly SignedManifest[],
): Pick<Manifest, "barrier" | "hosts"> {
  if (request.kind === "drop") return { hosts: withStages(hosts, () => []) };
  const before = current?.barrier;
  const carried = (hostname: string): Stage[] =>
    (current && entryOf(current, hostname)?.through) ?? [];
  const added = expectBarrier(request, current, retained);
  if (!added) return { ...(before && { barrier: before }), hosts: withStages(hosts, carried) };
  const { manifest, digest } = added;
  const position = positionOf(manifest);
  const place = {
    ...(position.epoch > 0 && { epoch: position.epoch }),
    sequence: position.sequence,
  };
  return {
    barrier: place,
    hosts: withStages(hosts, (hostname) => {
      const entry = entryOf(manifest, hostname);
      if (!entry) return carried(hostname);
      const earlier = (entry.through ?? []).filter((stage) => stage.digest !== digest);
      const activation = activationOf(manifest, entry);
      return [...earlier, { ...place, digest, ...systemOf(entry), activation }];
    }),
  };
}

function withStages(
  hosts: Manifest["hosts"],
  stagesOf: (hostname: string) => readonly Stage[],
): Manifest["hosts"] {
  return Object.fromEntries(
    Object.entries(hosts).map(([hostname, { through: _, ...entry }]): [string, HostEntry] => {
      const stages = stagesOf(hostname);
      if (stages.length > MAX_STAGES) {
        throw new PullError(
          "PUBLISH_FAILED",
          `${hostname}: expected at most ${MAX_STAGES} barriers, found ${stages.length}; ` +
            "--no-barrier removes them",
        );
      }
      return [hostname, stages.length === 0 ? entry : { ...entry, through: [...stages] }];
    }),
  );
}

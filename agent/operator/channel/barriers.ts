import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { PullError } from "../../core/errors.ts";
import {
  MAX_STAGES,
  activationOf,
  comparePositions,
  describePosition,
  entryOf,
  positionOf,
  readManifest,
  type HostEntry,
  type Manifest,
  type SignedManifest,
  type Stage,
} from "../../core/formats/manifest.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";

/**
 * What a release says of the barriers before it: those of the current one are carried on
 * (`keep`), or taken away (`drop`), or a release of the channel becomes one more.
 */
export type BarrierRequest =
  | { readonly kind: "keep" }
  | { readonly kind: "drop" }
  | { readonly kind: "add"; readonly sequence: number };

/** The channel's releases that are retained and signed by these keys, newest first. */
export async function retainedReleases(
  writer: MirrorWriter,
  channel: string,
  trust: TrustPolicy,
): Promise<SignedManifest[]> {
  const found: SignedManifest[] = [];
  for (const { envelope } of await writer.shelf.releases(channel)) {
    try {
      found.push(readManifest(envelope, trust));
    } catch {
      // Signed by keys that count no longer: nothing is built upon it.
    }
  }
  return found;
}

/** A retained release of the current epoch, by its number. Throws PUBLISH_FAILED. */
export function findRelease(
  retained: readonly SignedManifest[],
  epoch: number,
  sequence: number,
): SignedManifest {
  const wanted = { epoch, sequence };
  const found = retained.find(
    ({ manifest }) => comparePositions(positionOf(manifest), wanted) === 0,
  );
  if (found) return found;
  const known = retained.map(({ manifest }) => describePosition(positionOf(manifest)));
  throw new PullError(
    "PUBLISH_FAILED",
    `expected a retained release ${describePosition(wanted)} that these keys signed; ` +
      `there are ${known.join(", ") || "none"}`,
  );
}

/**
 * The barrier of a new release, and its hosts with what they have to become before. Throws
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
  if (request.kind === "keep") {
    return { ...(before && { barrier: before }), hosts: withStages(hosts, carried) };
  }
  const release = findRelease(retained, current?.epoch?.number ?? 0, request.sequence);
  const { manifest, digest } = release;
  const position = positionOf(manifest);
  if (
    before &&
    comparePositions(position, { epoch: before.epoch ?? 0, sequence: before.sequence }) < 0
  ) {
    throw new PullError(
      "PUBLISH_FAILED",
      `--barrier: expected release ${before.sequence}, which is one already, or a later one, ` +
        `found ${request.sequence}`,
    );
  }
  const place = {
    ...(position.epoch > 0 && { epoch: position.epoch }),
    sequence: position.sequence,
  };
  return {
    barrier: place,
    hosts: withStages(hosts, (hostname) => {
      const entry = entryOf(manifest, hostname);
      if (!entry) return carried(hostname);
      const { toplevel, closureSize, archive } = entry;
      const earlier = (entry.through ?? []).filter((stage) => stage.digest !== digest);
      const activation = activationOf(manifest, entry);
      return [...earlier, { ...place, digest, toplevel, closureSize, archive, activation }];
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
            "--no-barrier takes them away",
        );
      }
      return [hostname, stages.length === 0 ? entry : { ...entry, through: [...stages] }];
    }),
  );
}

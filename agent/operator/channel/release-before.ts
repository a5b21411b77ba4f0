import { PullError } from "../../core/errors.ts";
import { openEnvelope, unverifiedPayload, type TrustPolicy } from "../../core/formats/envelope.ts";
import type { Manifest } from "../../core/formats/manifest.ts";
import { parseUnverified } from "../../core/formats/manifest-reader.ts";
import { describeKnown, placeOf } from "../../core/release/release-history.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";
import { digestIn } from "../mirror/retained-releases.ts";
import type { SeenRelease } from "./seen-difference.ts";

/** A release that was found somewhere, with its envelope; whoever signed it. */
export interface FoundRelease extends SeenRelease {
  readonly envelope: Uint8Array;
}

/** The release in an envelope, whoever signed it. Throws ENVELOPE_INVALID, MANIFEST_INVALID. */
export function releaseIn(envelope: Uint8Array): FoundRelease {
  const { payload } = unverifiedPayload(envelope);
  return { manifest: parseUnverified(payload), digest: sha256Hex(payload), envelope };
}

/**
 * The release in an envelope, if it is the one that `manifest` says it comes after. That proves
 * nothing about who signed either of them. Throws RELEASE_FORKED if it is another one.
 */
export function expectBefore(
  manifest: Manifest,
  envelope: Uint8Array,
  place: string,
): FoundRelease {
  const found = releaseIn(envelope);
  const last = manifest.history.releases.at(-1);
  if (last?.digest === found.digest) return found;
  throw new PullError(
    "RELEASE_FORKED",
    `${place}: expected ${describeBefore(manifest) ?? "no release"}, after which this one comes ` +
      `by its own words, found one with digest ${found.digest}`,
  );
}

/** The release before `manifest`, if the mirror retains it; whoever signed it. */
export async function retainedBefore(
  { retained }: Pick<MirrorWriter, "retained">,
  { channel, history }: Manifest,
): Promise<FoundRelease | null> {
  const last = history.releases.at(-1);
  if (!last) return null;
  for (const { file } of await retained.releases(channel)) {
    const envelope = await retained.read(file);
    try {
      if (digestIn(envelope) === last.digest) return releaseIn(envelope);
    } catch (error) {
      if (!(error instanceof PullError)) throw error;
    }
  }
  return null;
}

/** Whether these keys signed a release. */
export function isSigned({ envelope }: FoundRelease, trust: TrustPolicy): boolean {
  try {
    openEnvelope(envelope, trust);
    return true;
  } catch (error) {
    if (error instanceof PullError) return false;
    throw error;
  }
}

/** What is said if nobody known vouches for the release that another one names before it. */
export function describeUnknownBefore(manifest: Manifest, place: string): string {
  return (
    `${place} says that it comes after ${describeBefore(manifest) ?? "no release"}. THAT RELEASE ` +
    "IS UNKNOWN: no known key signed it, and nothing remembers it"
  );
}

function describeBefore({ history }: Manifest): string | null {
  const last = history.releases.at(-1);
  return last ? describeKnown({ ...placeOf(last), digest: last.digest }) : null;
}

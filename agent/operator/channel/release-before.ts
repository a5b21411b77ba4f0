import { parseEnvelope } from "../../core/formats/envelope.ts";
import { PullError } from "../../core/errors.ts";
import { parseManifest, type Manifest } from "../../core/formats/manifest.ts";
import { describeKnown, placeOf } from "../../core/release/release-history.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";
import type { SeenRelease } from "./seen-difference.ts";

/** The release in an envelope, whoever signed it. Throws ENVELOPE_INVALID, MANIFEST_INVALID. */
export function releaseIn(envelope: Uint8Array): SeenRelease {
  const payload = Buffer.from(parseEnvelope(envelope).payload, "base64");
  return { manifest: parseManifest(payload), digest: sha256Hex(payload) };
}

/**
 * The release in an envelope, if it is the one that `manifest` says it comes after: its digest
 * proves that, whoever gave it. Throws RELEASE_FORKED if it is another one.
 */
export function expectBefore(manifest: Manifest, envelope: Uint8Array, place: string): SeenRelease {
  const found = releaseIn(envelope);
  const last = manifest.history.releases.at(-1);
  if (last?.digest === found.digest) return found;
  const known = last && describeKnown({ ...placeOf(last), digest: last.digest });
  throw new PullError(
    "RELEASE_FORKED",
    `${place}: expected ${known ?? "no release"}, after which this one comes by its own words, ` +
      `found one with digest ${found.digest}`,
  );
}

/** The release before `manifest`, if the mirror retains it. */
export async function retainedBefore(
  { retained }: Pick<MirrorWriter, "retained">,
  { channel, history }: Manifest,
): Promise<SeenRelease | null> {
  const last = history.releases.at(-1);
  if (!last) return null;
  for (const { envelope } of await retained.releases(channel)) {
    try {
      const release = releaseIn(envelope);
      if (release.digest === last.digest) return release;
    } catch (error) {
      if (!(error instanceof PullError)) throw error;
    }
  }
  return null;
}

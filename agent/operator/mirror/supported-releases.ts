import { PullError } from "../../core/errors.ts";
import { unverifiedPayload } from "../../core/formats/envelope.ts";
import {
  parseManifest,
  type Manifest,
  type SupportedRelease,
} from "../../core/formats/manifest.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import type { MirrorReader } from "./mirror-reader.ts";
import type { MirrorWriter } from "./mirror-writer.ts";
import { digestOrNull } from "./retained-releases.ts";

/**
 * Puts the older releases that a release names to where hosts read them. Call it before the release
 * comes into force. Throws PUBLISH_FAILED if one of them is not retained, UNSAFE_FILE.
 */
export async function placeSupported(
  writer: MirrorWriter,
  { channel, supported = [] }: Pick<Manifest, "channel" | "supported">,
): Promise<void> {
  for (const { digest, sequence } of supported) {
    const envelope = await supportedEnvelope(writer, channel, digest);
    if (!envelope) {
      throw new PullError(
        "PUBLISH_FAILED",
        `expected release ${sequence} of ${channel} with digest ${digest}, which the new release ` +
          `names for older agents; ${writer.directory} does not retain it`,
      );
    }
    const placed = await writer.readSupported(channel, digest);
    if (!placed?.equals(envelope)) await writer.placeSupported(channel, digest, envelope);
  }
}

/**
 * An older release that a verified one names, which vouches for it by its digest. Throws
 * MIRROR_STATUS if it is another one, ENVELOPE_INVALID, MANIFEST_INVALID, AGENT_TOO_OLD.
 */
export function readNamed(
  envelope: Uint8Array,
  { digest, sequence }: Pick<SupportedRelease, "digest" | "sequence">,
): { manifest: Manifest; digest: string } {
  const { payload } = unverifiedPayload(envelope);
  const found = sha256Hex(payload);
  if (found === digest) return { manifest: parseManifest(payload), digest };
  throw new PullError(
    "MIRROR_STATUS",
    `release ${sequence}: expected the one with digest ${digest}, found ${found}`,
  );
}

/** The envelope of an older release by its digest: as it is retained, or as hosts read it. */
export async function supportedEnvelope(
  mirror: MirrorReader,
  channel: string,
  wanted: string,
): Promise<Buffer | null> {
  for (const { file } of await mirror.retained.releases(channel)) {
    const envelope = await mirror.retained.read(file);
    if (digestOrNull(envelope) === wanted) return envelope;
  }
  const placed = await mirror.readSupported(channel, wanted);
  return placed && digestOrNull(placed) === wanted ? placed : null;
}

import type { TrustPolicy } from "../formats/envelope.ts";
import { PullError } from "../errors.ts";
import { readManifest, type SignedManifest } from "../formats/manifest.ts";
import type { Mirror } from "../ports.ts";

/** The release that a mirror has for a channel. */
export interface ChannelRelease {
  /** The manifest's envelope, as it was read. */
  readonly envelope: Uint8Array;
  readonly signed: SignedManifest;
}

/**
 * Reads a channel's manifest from a mirror and verifies it, whatever was read before. Throws the
 * MIRROR_ errors, the trust errors, and CHANNEL_MISMATCH if it is of another channel.
 */
export async function readChannel(
  mirror: Pick<Mirror, "address" | "readManifest">,
  channel: string,
  trust: TrustPolicy,
  signal?: AbortSignal,
): Promise<ChannelRelease> {
  const answer = await mirror.readManifest(channel, { signal });
  if (answer.kind !== "read") {
    throw new PullError(
      "MIRROR_STATUS",
      `${mirror.address}: expected a manifest, found "not modified" although it was not asked for`,
    );
  }
  const signed = readManifest(answer.bytes, trust);
  if (signed.manifest.channel !== channel) {
    throw new PullError(
      "CHANNEL_MISMATCH",
      `expected a manifest of channel ${channel}, found one of ${signed.manifest.channel}`,
    );
  }
  return { envelope: answer.bytes, signed };
}

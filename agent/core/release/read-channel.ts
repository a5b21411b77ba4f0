import type { TrustPolicy } from "../formats/envelope.ts";
import { PullError } from "../errors.ts";
import { readManifest, type SignedFrame, type SignedManifest } from "../formats/manifest.ts";
import { readOffer, type OfferedRelease } from "./offered-release.ts";
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
  mirror: ManifestSource,
  channel: string,
  trust: TrustPolicy,
  signal?: AbortSignal,
): Promise<ChannelRelease> {
  const envelope = await readEnvelope(mirror, channel, signal);
  const signed = readManifest(envelope, trust);
  expectChannel(signed, channel);
  return { envelope, signed };
}

/** The same as hosts read it: with keys and features of later versions. */
export async function readOfferedChannel(
  mirror: ManifestSource,
  channel: string,
  trust: TrustPolicy,
  signal?: AbortSignal,
): Promise<OfferedRelease> {
  const offered = readOffer(await readEnvelope(mirror, channel, signal), trust);
  expectChannel(offered.signed, channel);
  return offered;
}

type ManifestSource = Pick<Mirror, "address" | "readManifest">;

async function readEnvelope(
  mirror: ManifestSource,
  channel: string,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const answer = await mirror.readManifest(channel, { signal });
  if (answer.kind !== "read") {
    throw new PullError(
      "MIRROR_STATUS",
      `${mirror.address}: expected a manifest, found "not modified" although it was not asked for`,
    );
  }
  return answer.bytes;
}

function expectChannel({ manifest }: SignedFrame, channel: string): void {
  if (manifest.channel === channel) return;
  throw new PullError(
    "CHANNEL_MISMATCH",
    `expected a manifest of channel ${channel}, found one of ${manifest.channel}`,
  );
}

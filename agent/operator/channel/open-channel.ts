import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { PullError } from "../../core/errors.ts";
import type { SignedManifest } from "../../core/formats/manifest.ts";
import type { Clock } from "../../core/ports.ts";
import type { PublicKey } from "../../core/formats/signing-key.ts";
import { MirrorWriter } from "../mirror/mirror-writer.ts";
import type { SigningOptions } from "./sign-and-place.ts";

/** What every command needs that makes the next release of a channel. */
export interface NextReleaseOptions extends SigningOptions {
  /** Directory of the mirror. */
  readonly mirror: string;
  readonly channel: string;
  /** Keys beside the signers' own by which earlier releases are verified. */
  readonly publicKeys: readonly PublicKey[];
  /** How long hosts may accept the new release, milliseconds. */
  readonly expiresInMs: number;
  readonly clock: Clock;
}

/** A mirror that is taken for writing, to make the next release of one of its channels. */
export interface OpenChannel {
  readonly writer: MirrorWriter;
  readonly channel: string;
  /** Whose releases are built upon. */
  readonly trust: TrustPolicy;
}

/**
 * Takes the mirror for writing, does `work`, and gives the mirror back. Throws USAGE if nobody
 * would sign a release that is not a draft, PUBLISH_LOCKED, and what `work` throws.
 */
export async function withOpenChannel<T>(
  options: NextReleaseOptions,
  work: (open: OpenChannel) => Promise<T>,
): Promise<T> {
  const { mirror, channel, signers, publicKeys, draft } = options;
  if (signers.length === 0 && draft === undefined) {
    throw new PullError(
      "USAGE",
      "expected a --key or --signer that signs the release, or --unsigned FILE",
    );
  }
  const writer = await MirrorWriter.open(mirror);
  try {
    const keys = [...signers.map(({ publicKey }) => publicKey), ...publicKeys];
    return await work({ writer, channel, trust: { publicKeys: keys, threshold: 1 } });
  } finally {
    await writer.close();
  }
}

/**
 * The release that a channel has now, or null if it has none. Throws PUBLISH_FAILED if these
 * keys did not sign it; `advice` says what else the operator may do.
 */
export async function currentRelease(
  { writer, channel, trust }: OpenChannel,
  advice = "",
): Promise<SignedManifest | null> {
  try {
    return await writer.currentRelease(channel, trust);
  } catch (cause) {
    throw new PullError(
      "PUBLISH_FAILED",
      `the current release of ${channel} cannot be read with these keys ` +
        `(${(cause as Error).message}); give its --public-key${advice}`,
      { cause },
    );
  }
}

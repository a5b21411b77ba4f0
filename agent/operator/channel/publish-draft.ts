import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { PullError } from "../../core/errors.ts";
import { readManifest } from "../../core/formats/manifest.ts";
import type { Clock } from "../../core/ports.ts";
import { MirrorWriter } from "../mirror/mirror-writer.ts";
import { expectNewer } from "./position.ts";
import type { PublishedRelease } from "./published-release.ts";
import { describePublished, expectArchives, placeRelease } from "./sign-and-place.ts";
import { readEnvelopeFile } from "./sign-release.ts";

export interface DraftOptions {
  /** Directory of the mirror. */
  readonly mirror: string;
  /** The file with the draft's envelope. */
  readonly draft: string;
  /** What hosts will demand. */
  readonly trust: TrustPolicy;
  readonly clock: Clock;
}

/**
 * Puts a draft into force. First it is verified the way hosts will, and every archive has to be
 * on the mirror. Throws the trust errors, MANIFEST_EXPIRED, PUBLISH_FAILED, PUBLISH_LOCKED.
 */
export async function publishDraft(options: DraftOptions): Promise<PublishedRelease> {
  const { bytes } = await readEnvelopeFile(options.draft);
  const { manifest, digest, signedBy } = readManifest(bytes, options.trust);
  const { channel, expiresAt } = manifest;
  if (Date.parse(expiresAt) <= options.clock.now().getTime()) {
    throw new PullError("MANIFEST_EXPIRED", `${options.draft}: it expired at ${expiresAt}`);
  }
  const writer = await MirrorWriter.open(options.mirror);
  try {
    // Hosts do not follow a release that these keys did not sign, so it may be replaced.
    const current = await writer.currentRelease(channel, options.trust).catch((error: unknown) => {
      if (error instanceof PullError) return null;
      throw error;
    });
    if (current?.digest !== digest) expectNewer(manifest, current?.manifest ?? null);
    await expectArchives(writer, manifest);
    await placeRelease(writer, manifest, bytes.toString("utf8"));
    return {
      ...describePublished(manifest, current?.manifest ?? null),
      digest,
      manifest: writer.manifestPath(channel),
      draft: false,
      signedBy,
      hosts: {},
    };
  } finally {
    await writer.close();
  }
}

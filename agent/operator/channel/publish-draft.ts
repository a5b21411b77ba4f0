import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { PullError } from "../../core/errors.ts";
import { readManifest, type Manifest, type SignedManifest } from "../../core/formats/manifest.ts";
import type { Clock } from "../../core/ports.ts";
import { ancestryOf, describeKnown, knownRelease } from "../../core/release/release-history.ts";
import { MirrorWriter } from "../mirror/mirror-writer.ts";
import { isUnsafe } from "./open-channel.ts";
import { expectNewer } from "./position.ts";
import type { PublishedRelease } from "./published-release.ts";
import { seeDifference, type SeenDifference } from "./seen-difference.ts";
import { describePublished, expectArchives, placeRelease } from "./sign-and-place.ts";
import { SignerMemoryFile } from "./signer-memory-file.ts";
import { fileNamed } from "../../effects/files/root-directory.ts";
import { readEnvelopeFile } from "./sign-release.ts";

export interface DraftOptions {
  /** Directory of the mirror. */
  readonly mirror: string;
  /** The file with the draft's envelope. */
  readonly draft: string;
  /** What hosts will demand. */
  readonly trust: TrustPolicy;
  readonly clock: Clock;
  /** The file that remembers what was signed; null if nothing does. */
  readonly memory: string | null;
  /** Hears what the draft changes, before it is put into force. */
  readonly onDifference: (difference: SeenDifference) => void;
  /** Hears of files in the mirror that nobody of us made, and that are left. */
  readonly onWarning: (message: string) => void;
}

/**
 * Puts a draft into force. First it is verified the way hosts will, and every archive has to be
 * on the mirror. It has to come after the release in force there, and after the one that the memory
 * knows. Throws the trust errors, MANIFEST_EXPIRED, RELEASE_BEHIND, RELEASE_FORKED,
 * PUBLISH_FAILED, PUBLISH_LOCKED, UNSAFE_FILE.
 */
export async function publishDraft(options: DraftOptions): Promise<PublishedRelease> {
  const { bytes } = await readEnvelopeFile(fileNamed(options.draft));
  const { manifest, digest, signedBy } = readManifest(bytes, options.trust);
  const { channel, expiresAt } = manifest;
  if (Date.parse(expiresAt) <= options.clock.now().getTime()) {
    throw new PullError("MANIFEST_EXPIRED", `${options.draft}: it expired at ${expiresAt}`);
  }
  const memory = await SignerMemoryFile.open(options.memory);
  memory.expectNewest(channel, { manifest, digest }, options.draft);
  const writer = await MirrorWriter.open(options.mirror, options.onWarning);
  try {
    // Hosts do not follow a release that these keys did not sign, so it may be replaced.
    const current = await writer.currentRelease(channel, options.trust).catch((error: unknown) => {
      if (error instanceof PullError && !isUnsafe(error)) return null;
      throw error;
    });
    if (current && current.digest !== digest) {
      expectNewer(manifest, current.manifest);
      expectAfter(manifest, current, options.draft);
    }
    await expectArchives(writer, manifest);
    const difference = await seeDifference(current, { manifest }, writer.asMirror());
    options.onDifference(difference);
    await memory.rememberSigned({ manifest, digest });
    await placeRelease(writer, manifest, bytes.toString("utf8"));
    await memory.rememberInForce({ manifest, digest });
    return {
      ...describePublished(manifest, current?.manifest ?? null),
      digest,
      manifest: writer.manifestPath(channel),
      draft: false,
      unchanged: false,
      difference,
      signedBy,
      hosts: {},
    };
  } finally {
    await writer.close();
  }
}

/** Throws RELEASE_FORKED if hosts that have the release in force would refuse the draft. */
function expectAfter(manifest: Manifest, current: SignedManifest, draft: string): void {
  const known = knownRelease(current);
  const isNewEpoch = (manifest.epoch?.number ?? 0) > known.epoch;
  if (isNewEpoch || ancestryOf(manifest, known).kind !== "other") return;
  throw new PullError(
    "RELEASE_FORKED",
    `${draft}: expected a draft that comes after ${describeKnown(known)}, which is in force; it ` +
      "was made before that. Make it again",
  );
}

import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { readEnvelopeParts } from "../../core/formats/envelope-reader.ts";
import { PullError } from "../../core/errors.ts";
import { readManifest, type Manifest, type SignedManifest } from "../../core/formats/manifest.ts";
import type { Clock } from "../../core/ports.ts";
import { ancestryOf, describeKnown, knownRelease } from "../../core/release/release-history.ts";
import { MirrorWriter } from "../mirror/mirror-writer.ts";
import { isUnsafe } from "./open-channel.ts";
import { expectNewer, expectRoomAfter } from "./position.ts";
import type { PublishedRelease } from "./published-release.ts";
import { claimedSigners, signersInForce, warnOfFewer, withSigners } from "./release-signers.ts";
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
  /** The files that remember what was signed. */
  readonly memory: readonly string[];
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
  const { expiresAt } = manifest;
  if (Date.parse(expiresAt) <= options.clock.now().getTime()) {
    throw new PullError("MANIFEST_EXPIRED", `${options.draft}: it expired at ${expiresAt}`);
  }
  expectRoomAfter(manifest);
  const memory = await SignerMemoryFile.open(options.memory);
  memory.warnIfNone(options.onWarning);
  const writer = await MirrorWriter.open(options.mirror, options.onWarning);
  try {
    const draft = { bytes, signed: { manifest, digest, signedBy } };
    return await memory.whileLocked(() => placeDraft(writer, memory, draft, options));
  } finally {
    await writer.close();
  }
}

/** A draft that was verified. */
interface VerifiedDraft {
  readonly bytes: Buffer;
  readonly signed: SignedManifest;
}

async function placeDraft(
  writer: MirrorWriter,
  memory: SignerMemoryFile,
  { bytes, signed }: VerifiedDraft,
  options: DraftOptions,
): Promise<PublishedRelease> {
  const { manifest, digest, signedBy } = signed;
  const { channel } = manifest;
  memory.expectNewest(channel, { manifest, digest }, options.draft);
  // Hosts do not follow a release that these keys did not sign, so it may be replaced.
  const current = await writer.currentRelease(channel, options.trust).catch((error: unknown) => {
    if (error instanceof PullError && !isUnsafe(error)) return null;
    throw error;
  });
  if (current) memory.warnIfNew(options.onWarning);
  if (current && current.digest !== digest) {
    expectNewer(manifest, current.manifest);
    expectAfter(manifest, current, options.draft);
  }
  await expectArchives(writer, manifest);
  const before = await signersInForce(writer, channel);
  const signers = claimedSigners(readEnvelopeParts(bytes));
  const seen = await seeDifference(current, { manifest }, writer.asMirror());
  const difference = withSigners(seen, before, signers);
  options.onDifference(difference);
  if (before) warnOfFewer(before, signedBy, writer.directory, options.onWarning);
  if (current) await memory.rememberInForce(current);
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

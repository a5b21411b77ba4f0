import { createHash } from "node:crypto";
import type { ArchiveContents, OtherArchive } from "../../core/formats/archive-index.ts";
import { encodeEnvelope, unsignedEnvelope } from "../../core/formats/envelope.ts";
import { PullError } from "../../core/errors.ts";
import {
  encodeManifest,
  parseManifest,
  readManifest,
  systemsIn,
  type Manifest,
} from "../../core/formats/manifest.ts";
import { writeDurably } from "../../effects/files/durable-file.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";
import { readContents } from "../publish/nar-library.ts";
import type { ReleaseSigner } from "./release-signer.ts";
import { signEnvelope } from "./sign-release.ts";

export interface PutOptions {
  /** None are needed for a draft. */
  readonly signers: readonly ReleaseSigner[];
  /** Write the envelope to this file instead of putting it into force. */
  readonly draft?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Where a release was put. */
export interface PutRelease {
  readonly digest: string;
  /** The file that was written: the manifest in force, or the draft. */
  readonly manifest: string;
  /** True where the release is not in force yet. */
  readonly draft: boolean;
  readonly signedBy: readonly string[];
}

/**
 * Signs a release and puts it into force, or into a draft: the last step of whatever makes
 * one. Every archive that it names has to be in place; hosts see it from one rename on.
 * Throws PUBLISH_FAILED, MANIFEST_INVALID, SIGNER_FAILED, INTERRUPTED.
 */
export async function putRelease(
  writer: MirrorWriter,
  manifest: Manifest,
  { signers, draft, signal }: PutOptions,
): Promise<PutRelease> {
  const payload = encodeManifest(manifest);
  // What hosts would refuse is not even signed.
  parseManifest(payload);
  await checkArchives(writer, manifest);
  const envelope = await signEnvelope(unsignedEnvelope(payload), signers);
  if (signal?.aborted) throw new PullError("INTERRUPTED", "stopped before the release");
  const text = encodeEnvelope(envelope);
  // What hosts will read is read as they read it before they can.
  const written =
    signers.length === 0
      ? null
      : readManifest(Buffer.from(text), {
          publicKeys: signers.map(({ publicKey }) => publicKey),
          threshold: new Set(signers.map(({ publicKey }) => publicKey.text)).size,
        });
  const digest = createHash("sha256").update(payload).digest("hex");
  if (draft === undefined) {
    await writer.shelf.keep(manifest, text);
    await writer.placeManifest(manifest.channel, text);
  } else {
    await writer.shelf.keepDraft(manifest, digest, text);
    await writeDurably(draft, text, 0o644);
  }
  return {
    digest,
    manifest: draft ?? writer.manifestPath(manifest.channel),
    draft: draft !== undefined,
    signedBy: written?.signedBy ?? [],
  };
}

/** A release may name archives that were there once and are gone. Throws PUBLISH_FAILED. */
export async function checkArchives(writer: MirrorWriter, manifest: Manifest): Promise<void> {
  const there = new Set<string>();
  // Apart from those that are there: one may be known as what others share, and not yet read.
  const read = new Set<string>();
  for (const { hostname, system } of systemsIn(manifest)) {
    const expectArchive = async (archive: OtherArchive): Promise<void> => {
      if (there.has(archive.sha256)) return;
      if (!(await writer.hasArchive(archive))) {
        throw new PullError(
          "PUBLISH_FAILED",
          `${hostname}: expected an archive of ${archive.size} bytes at ${writer.archivePath(archive.sha256)}`,
        );
      }
      there.add(archive.sha256);
    };
    if (read.has(system.archive.sha256)) continue;
    read.add(system.archive.sha256);
    await expectArchive(system.archive);
    const contents = await readContents(writer, system);
    if (!contents) {
      throw new PullError(
        "PUBLISH_FAILED",
        `${hostname}: the index in ${writer.archivePath(system.archive.sha256)} is not its own`,
      );
    }
    for (const archive of archivesIn(contents)) await expectArchive(archive);
  }
}

/** The archives that an index names beside its own. */
export function archivesIn({ elsewhere }: ArchiveContents): OtherArchive[] {
  return elsewhere.map(({ archive }) => archive);
}

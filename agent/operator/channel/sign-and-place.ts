import type { OtherArchive } from "../../core/formats/archive-index.ts";
import { encodeEnvelope, unsignedEnvelope } from "../../core/formats/envelope.ts";
import { PullError } from "../../core/errors.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import {
  encodeManifest,
  parseManifest,
  positionOf,
  readManifest,
  systemsIn,
  type Manifest,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import { fileNamed } from "../../effects/files/root-directory.ts";
import { archiveFile, manifestFile } from "../mirror/mirror-reader.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";
import { placeSupported } from "../mirror/supported-releases.ts";
import type { PublishedHost, PublishedRelease } from "./published-release.ts";
import type { ReleaseSigner } from "./release-signer.ts";
import type { SignerMemoryFile } from "./signer-memory-file.ts";
import { signersInForce, warnOfFewer, withSigners } from "./release-signers.ts";
import { seeDifference, type SeenDifference } from "./seen-difference.ts";
import { signEnvelope } from "./sign-release.ts";

/** Who signs a release, and where it is put. */
export interface SigningOptions {
  /** A draft needs none. */
  readonly signers: readonly ReleaseSigner[];
  /** Write the envelope to this file instead of putting it into force. */
  readonly draft?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Hears what the release changes, before anything is signed or put into force. */
  readonly onDifference: (difference: SeenDifference) => void;
}

/** Where a release is put, and what remembers it. */
export interface SigningPlace {
  readonly writer: MirrorWriter;
  readonly memory: SignerMemoryFile;
  /** Hears what a person should know, and what does not end the command. */
  readonly onWarning: (message: string) => void;
}

/** A release that is ready to be signed, and what it comes from. */
export interface UnsignedRelease {
  readonly manifest: Manifest;
  /** The release that it replaces, or null. */
  readonly current: SignedManifest | null;
  /** What was packed for it; nothing if its systems are those of an earlier release. */
  readonly packed?: Readonly<Record<string, PublishedHost>>;
}

/**
 * Signs a release and puts it into force, or into a draft: the last step of every command that
 * makes a release. What it changes is shown first. Hosts see the release as soon as the manifest is renamed, so every archive
 * that it names has to be in place before. Throws PUBLISH_FAILED if one is not, MANIFEST_INVALID,
 * RELEASE_BEHIND, RELEASE_FORKED, SIGNER_FAILED, INTERRUPTED, UNSAFE_FILE.
 */
export async function signAndPlace(
  place: SigningPlace,
  release: UnsignedRelease,
  options: SigningOptions,
): Promise<PublishedRelease> {
  const payload = encodeManifest(release.manifest);
  // A manifest that hosts would refuse is not signed.
  parseManifest(payload);
  await expectArchives(place.writer, release.manifest);
  return place.memory.whileLocked(() => signPayload(payload, place, release, options));
}

async function signPayload(
  payload: Buffer,
  { writer, memory, onWarning }: SigningPlace,
  { manifest, current, packed = {} }: UnsignedRelease,
  { signers, draft, signal, onDifference }: SigningOptions,
): Promise<PublishedRelease> {
  const digest = sha256Hex(payload);
  memory.expectSignable({ manifest, digest }, "the new release");
  const names = signers.map(({ publicKey }) => publicKey.name);
  const isDraft = draft !== undefined;
  const before = isDraft ? null : await signersInForce(writer, manifest.channel);
  const seen = await seeDifference(current, { manifest }, writer.asMirror());
  const difference = withSigners(seen, before, names);
  onDifference(difference);
  if (before) warnOfFewer(before, names, writer.directory, onWarning);
  const envelope = await signEnvelope(unsignedEnvelope(payload), signers);
  if (signal?.aborted) throw new PullError("INTERRUPTED", "stopped before the release");
  const text = encodeEnvelope(envelope);
  // Read the envelope back the way hosts will, before they can see it.
  const written =
    signers.length === 0
      ? null
      : readManifest(Buffer.from(text), {
          publicKeys: signers.map(({ publicKey }) => publicKey),
          threshold: new Set(signers.map(({ publicKey }) => publicKey.text)).size,
        });
  // It was verified, so it is more than what the new release claims.
  if (current) await memory.rememberInForce(current);
  // Whoever has seen it, its number is taken, also if this is cut off now.
  await memory.rememberSigned({ manifest, digest });
  if (draft === undefined) {
    await placeRelease(writer, manifest, text);
    await memory.rememberInForce({ manifest, digest });
  } else {
    await writer.retained.keepDraft(manifest, digest, text);
    const { root, name } = fileNamed(draft);
    await root.writeFile(name, text);
  }
  return {
    ...describePublished(manifest, current?.manifest ?? null),
    digest,
    manifest: draft ?? writer.manifestPath(manifest.channel),
    draft: draft !== undefined,
    unchanged: false,
    difference,
    signedBy: written?.signedBy ?? [],
    hosts: packed,
  };
}

/**
 * Puts a signed release into force, and retains it and what it names for older agents first. Throws
 * PUBLISH_FAILED if the mirror does not retain that.
 */
export async function placeRelease(
  writer: MirrorWriter,
  manifest: Manifest,
  envelope: string | Uint8Array,
): Promise<void> {
  await placeSupported(writer, manifest);
  await writer.retained.keep(manifest, envelope);
  await writer.placeManifest(manifest.channel, envelope);
  await warnIfHidden(writer, manifest);
}

/**
 * Warns if only their owner can read the files that hosts need, as under umask 077: a web server
 * that runs as another user would answer 403.
 */
async function warnIfHidden(writer: MirrorWriter, manifest: Manifest): Promise<void> {
  const archives = new Set(systemsIn(manifest).map(({ system }) => system.archive.sha256));
  const names = [
    ...["channels", `channels/${manifest.channel}`, manifestFile(manifest.channel), "archives"],
    ...[...archives].map(archiveFile),
  ];
  for (const name of names) {
    const found = await writer.root.stat(name);
    if (!found || (found.mode & READABLE_BY_OTHERS) !== 0) continue;
    writer.onWarning(
      `${writer.root.nameOf(name)} can be read by its owner only, so a web server may refuse it; ` +
        `\`chmod -R go+rX ${writer.directory}\` mends that, and umask 022 prevents it`,
    );
    return;
  }
}

/** By the group or by all (stat(2)). */
const READABLE_BY_OTHERS = 0o044;

/** What a person is told of any new release. */
export function describePublished(
  manifest: Manifest,
  current: Manifest | null,
): Pick<
  PublishedRelease,
  "channel" | "epoch" | "sequence" | "createdAt" | "expiresAt" | "dropped"
> {
  const { channel, createdAt, expiresAt } = manifest;
  const dropped = droppedHosts(manifest.hosts, current);
  return { channel, ...positionOf(manifest), createdAt, expiresAt, dropped };
}

/** Hosts of the current release that the next one does not name. */
export function droppedHosts(hosts: Manifest["hosts"], current: Manifest | null): string[] {
  return Object.keys(current?.hosts ?? {}).filter((name) => !Object.hasOwn(hosts, name));
}

/** Throws PUBLISH_FAILED if an archive that the release names is not on the mirror. */
export async function expectArchives(writer: MirrorWriter, manifest: Manifest): Promise<void> {
  const present = new Set<string>();
  // Apart from `present`: other indexes may name this archive before its own index is read.
  const read = new Set<string>();
  for (const { hostname, system } of systemsIn(manifest)) {
    const expectArchive = async (archive: OtherArchive): Promise<void> => {
      if (present.has(archive.sha256)) return;
      if (!(await writer.hasArchive(archive))) {
        throw new PullError(
          "PUBLISH_FAILED",
          `${hostname}: expected an archive of ${archive.size} bytes at ${writer.archivePath(archive.sha256)}`,
        );
      }
      present.add(archive.sha256);
    };
    if (read.has(system.archive.sha256)) continue;
    read.add(system.archive.sha256);
    await expectArchive(system.archive);
    const contents = await writer.readContents(system);
    if (!contents) {
      throw new PullError(
        "PUBLISH_FAILED",
        `${hostname}: expected the index that its release names in ` +
          `${writer.archivePath(system.archive.sha256)}, found another`,
      );
    }
    for (const { archive } of contents.elsewhere) await expectArchive(archive);
  }
}

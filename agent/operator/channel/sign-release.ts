import {
  addSignature,
  encodeEnvelope,
  parseEnvelope,
  unverifiedPayload,
  signedBytesOf,
  RELEASE_PAYLOAD_TYPE,
  type Envelope,
  type TrustPolicy,
} from "../../core/formats/envelope.ts";
import { readEnvelopeParts } from "../../core/formats/envelope-reader.ts";
import { PullError } from "../../core/errors.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import { positionOf, type Manifest } from "../../core/formats/manifest.ts";
import { parseUnverified } from "../../core/formats/manifest-reader.ts";
import { isNotFound } from "../../effects/files/missing-file.ts";
import { readOpenFile } from "../../effects/files/regular-file.ts";
import { RootDirectory, fileNamed, type FileBelow } from "../../effects/files/root-directory.ts";
import { MAX_MANIFEST_BYTES } from "../mirror/retained-releases.ts";
import { expectChannel } from "../mirror/channels.ts";
import { manifestFile } from "../mirror/mirror-reader.ts";
import { MirrorWriter } from "../mirror/mirror-writer.ts";
import { expectRoomAfter } from "./position.ts";
import type { ArchiveSource } from "../mirror/read-contents.ts";
import {
  describeUnknownBefore,
  isSigned,
  retainedBefore,
  type FoundRelease,
} from "./release-before.ts";
import { seeDifference, type SeenDifference, type SeenRelease } from "./seen-difference.ts";
import { SignerMemoryFile } from "./signer-memory-file.ts";
import type { ReleaseSigner } from "./release-signer.ts";

/** The release that a difference is shown from, and where the archives of both are. */
export interface Against {
  /** Whoever signed it: it is only used if known keys did, or if the memory knows it. */
  readonly release: FoundRelease | null;
  readonly source: ArchiveSource | null;
}

/** Who signs, and what he is shown before. */
export interface SignOptions {
  readonly signers: readonly ReleaseSigner[];
  /** Whose releases are believed: the release before is one only if these signed it. */
  readonly trust: TrustPolicy;
  /** The files that remember what was signed. */
  readonly memory: readonly string[];
  /** Finds the release that the draft comes after. */
  readonly seeBefore: (manifest: Manifest) => Promise<Against>;
  /** Hears what the release changes, before it is signed. */
  readonly onDifference: (difference: SeenDifference, release: SeenRelease) => void;
  /** Hears of files in the mirror that nobody of us made, and of a release before that is unknown. */
  readonly onWarning: (message: string) => void;
}

/** What was signed, for the person who signed it. */
export interface SignedRelease {
  readonly file: string;
  readonly manifest: Manifest;
  /** sha256 of the payload, which signers at several places compare. */
  readonly digest: string;
  /** What it changes, as it was shown before it was signed. */
  readonly difference: SeenDifference;
  /** Names of the keys whose signatures were added now. */
  readonly added: readonly string[];
  /** Names that all signatures claim. Only the signatures just added were verified here. */
  readonly claimed: readonly string[];
}

/**
 * Reads a file with an envelope, such as a draft on a stick. Signatures are not verified. Throws
 * USAGE, ENVELOPE_INVALID, UNSAFE_FILE.
 */
export async function readSignedFile({
  root,
  name,
}: FileBelow): Promise<{ bytes: Buffer; payloadType: string }> {
  const path = root.nameOf(name);
  const file = await root.openFile(name).catch((cause: unknown) => {
    if (!isNotFound(cause)) throw cause;
    throw new PullError("USAGE", `${path}: expected a signed file, found none`, { cause });
  });
  try {
    const bounds = { maxBytes: MAX_MANIFEST_BYTES, code: "ENVELOPE_INVALID" } as const;
    const bytes = await readOpenFile(file, { name: path, ...bounds });
    return { bytes, payloadType: payloadTypeIn(bytes, path) };
  } finally {
    await file.close();
  }
}

/** Throws ENVELOPE_INVALID, naming the file. */
function payloadTypeIn(bytes: Buffer, path: string): string {
  try {
    return readEnvelopeParts(bytes).payloadType;
  } catch (error) {
    if (!(error instanceof PullError)) throw error;
    throw new PullError(error.code, `${path}: ${error.message}`, { cause: error });
  }
}

/**
 * Reads a file with a release's envelope. Signatures are not verified. Throws USAGE,
 * ENVELOPE_INVALID, PAYLOAD_TYPE_WRONG, MANIFEST_INVALID, UNSAFE_FILE.
 */
export async function readEnvelopeFile(
  file: FileBelow,
): Promise<{ bytes: Buffer; envelope: Envelope; manifest: Manifest }> {
  const { bytes } = await readSignedFile(file);
  const { payloadType, payload } = unverifiedPayload(bytes);
  if (payloadType !== RELEASE_PAYLOAD_TYPE) {
    throw new PullError(
      "PAYLOAD_TYPE_WRONG",
      `${file.root.nameOf(file.name)}: expected payload type ${RELEASE_PAYLOAD_TYPE}, found ${JSON.stringify(payloadType)}`,
    );
  }
  // Before the envelope becomes text, which takes as much memory once more.
  const manifest = parseUnverified(payload);
  return { bytes, manifest, envelope: parseEnvelope(bytes) };
}

/** The envelope with the signature of each signer added. Throws SIGNER_FAILED. */
export async function signEnvelope(
  envelope: Envelope,
  signers: readonly ReleaseSigner[],
): Promise<Envelope> {
  const message = signedBytesOf(envelope);
  let signed = envelope;
  for (const signer of signers) {
    signed = addSignature(signed, signer.publicKey, await signer.sign(message));
  }
  return signed;
}

/**
 * Adds signatures to a release: to the file `target`, or, if `target` is a mirror's directory, to
 * the channel's release in force. The payload stays the same byte for byte, so hosts see the same
 * release. A payload that is no valid manifest, or that contradicts what the memory knows, is not
 * signed; nor one after a release that nobody known signed, if the memory knows the channel. The file is replaced by rename. Throws USAGE, the trust errors, RELEASE_BEHIND,
 * RELEASE_FORKED, SIGNER_FAILED, PUBLISH_LOCKED, UNSAFE_FILE.
 */
export async function signRelease(
  target: string,
  channel: string,
  options: SignOptions,
): Promise<SignedRelease> {
  const memory = await SignerMemoryFile.open(options.memory);
  const mirror = new RootDirectory(target);
  const isMirror = (await mirror.stat("")) !== null;
  if (isMirror) await expectChannel(mirror, channel);
  memory.warnIfNone(options.onWarning);
  if (!isMirror) {
    return memory.whileLocked(() => signFile(fileNamed(target), { ...options, memory }));
  }
  const writer = await MirrorWriter.open(target, options.onWarning);
  try {
    const seeBefore = async (manifest: Manifest): Promise<Against> => ({
      release: await retainedBefore(writer, manifest),
      source: writer.asMirror(),
    });
    const file = { root: writer.root, name: manifestFile(channel) };
    memory.warnIfNew(options.onWarning);
    return await memory.whileLocked(async () => {
      const signed = await signFile(file, { ...options, seeBefore, memory });
      await memory.rememberInForce(signed);
      return signed;
    });
  } finally {
    await writer.close();
  }
}

type FileSignOptions = Omit<SignOptions, "memory"> & { readonly memory: SignerMemoryFile };

/**
 * The release to compare with: the one that the draft names before it, if it is known. The draft
 * may have been made by anybody, and so may the release that it names. Throws RELEASE_FORKED if it
 * is unknown and the memory knows others of the channel.
 */
async function knownBefore(
  { manifest, digest }: SeenRelease,
  file: string,
  { trust, memory, seeBefore, onWarning }: FileSignOptions,
): Promise<Against> {
  const { channel, history } = manifest;
  const { release, source } = await seeBefore(manifest);
  const last = history.releases.at(-1);
  if (!last) return { release, source };
  if (release && isSigned(release, trust)) {
    await memory.rememberInForce(release);
    return { release, source };
  }
  if (memory.knows(channel, last)) return { release, source };
  const unknown = describeUnknownBefore(manifest, file);
  const isSignedBefore = memory.knows(channel, { ...positionOf(manifest), digest });
  if (memory.knowsChannel(channel) && !isSignedBefore) {
    throw new PullError(
      "RELEASE_FORKED",
      `${unknown}. Find out who made it. If others signed it: --against MIRROR, with the ` +
        "--public-key of one who did, shows and remembers it",
    );
  }
  onWarning(`${unknown}. Everything is shown`);
  return { release: null, source };
}

async function signFile(file: FileBelow, options: FileSignOptions): Promise<SignedRelease> {
  const { signers, onDifference, memory } = options;
  const { root, name } = file;
  const { envelope, manifest } = await readEnvelopeFile(file);
  const digest = sha256Hex(Buffer.from(envelope.payload, "base64"));
  expectRoomAfter(manifest);
  memory.expectSignable({ manifest, digest }, root.nameOf(name));
  const { release, source } = await knownBefore({ manifest, digest }, root.nameOf(name), options);
  const difference = await seeDifference(release, { manifest }, source);
  onDifference(difference, { manifest, digest });
  const signed = await signEnvelope(envelope, signers);
  const added = signed.signatures.slice(envelope.signatures.length);
  if (added.length > 0) {
    await memory.rememberSigned({ manifest, digest });
    const mode = (await root.statFile(name))?.mode ?? 0o644;
    await root.writeFile(name, encodeEnvelope(signed), mode & 0o777);
  }
  const names = ({ signatures }: Pick<Envelope, "signatures">): string[] =>
    signatures.map(({ keyid }) => keyid ?? "unnamed");
  return {
    file: root.nameOf(name),
    manifest,
    digest,
    difference,
    added: names({ signatures: added }),
    claimed: names(signed),
  };
}

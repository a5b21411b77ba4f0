import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { PullError } from "../../core/errors.ts";
import {
  comparePositions,
  describePosition,
  positionOf,
  type Position,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import { placeUnverified, type ManifestPlace } from "../../core/formats/manifest-reader.ts";
import type { Clock } from "../../core/ports.ts";
import type { Report } from "../../core/formats/report.ts";
import type { PublicKey } from "../../core/formats/signing-key.ts";
import { placeOf } from "../../core/release/release-history.ts";
import { fileNamed } from "../../effects/files/root-directory.ts";
import { MirrorWriter } from "../mirror/mirror-writer.ts";
import type { SigningOptions } from "./sign-and-place.ts";
import { SignerMemoryFile } from "./signer-memory-file.ts";

/** What every command needs that makes the next release of a channel. */
export interface NextReleaseOptions extends SigningOptions {
  /** Directory of the mirror. */
  readonly mirror: string;
  readonly channel: string;
  /** Keys beside the signers' own by which earlier releases are verified. */
  readonly publicKeys: readonly PublicKey[];
  /** How long hosts may accept the new release, milliseconds. */
  readonly expiresInMs: number;
  /**
   * How long older releases stay for agents that lack what the new one requires, milliseconds. If
   * absent, those that are named already keep their time, and others get the default.
   */
  readonly supportMs?: number | undefined;
  /** What hosts said last, to tell which of them could not follow the new release. */
  readonly reports?: readonly Report[] | undefined;
  readonly clock: Clock;
  /** The files that remember what was signed. */
  readonly memory: readonly string[];
  /** Hears what a person should know, and what does not end the command. */
  readonly onWarning: (message: string) => void;
}

/** A mirror that is taken for writing, to make the next release of one of its channels. */
export interface OpenChannel {
  readonly writer: MirrorWriter;
  readonly channel: string;
  /** Whose releases are built upon. */
  readonly trust: TrustPolicy;
  /** What was signed before, whatever the mirror says. */
  readonly memory: SignerMemoryFile;
  readonly onWarning: (message: string) => void;
}

/**
 * Takes the mirror for writing, does `work`, and gives the mirror back. Throws USAGE if nobody
 * would sign a release that is not a draft, PUBLISH_LOCKED, UNSAFE_FILE, and what `work` throws.
 */
export async function withOpenChannel<T>(
  options: NextReleaseOptions,
  work: (open: OpenChannel) => Promise<T>,
): Promise<T> {
  const { mirror, channel, signers, publicKeys, draft, onWarning } = options;
  if (signers.length === 0 && draft === undefined) {
    throw new PullError(
      "USAGE",
      "expected a --key or --signer that signs the release, or --unsigned FILE",
    );
  }
  if (draft !== undefined) await expectRoomForDraft(draft);
  const memory = await SignerMemoryFile.open(options.memory);
  await memory.expectWritable();
  memory.warnIfNone(onWarning);
  const writer = await MirrorWriter.open(mirror, options.onWarning);
  try {
    const keys = [...signers.map(({ publicKey }) => publicKey), ...publicKeys];
    const trust = { publicKeys: keys, threshold: 1 };
    return await work({ writer, channel, trust, memory, onWarning });
  } finally {
    await writer.close();
  }
}

/** Throws USAGE if a draft could not be written to this file. It is written last, after all work. */
async function expectRoomForDraft(draft: string): Promise<void> {
  const { root, name } = fileNamed(draft);
  const directory = await root.stat("").catch(() => null);
  const what = !directory
    ? `a file in a directory, found no directory ${root.path}`
    : (await root.stat(name))?.isDirectory()
      ? "a file, found a directory"
      : null;
  if (what !== null) throw new PullError("USAGE", `the draft ${draft}: expected ${what}`);
}

/** How the release in force is read. */
export interface CurrentReleaseOptions {
  /** What else the operator may do if these keys did not sign it. */
  readonly advice?: string;
  /** A new epoch leaves behind what was signed before: what is wrong with that is only a warning. */
  readonly newEpoch?: boolean;
}

/**
 * The release that a channel has now, or null if it has none. It is the newest that the mirror or
 * the memory knows. Throws PUBLISH_FAILED if these keys did not sign it, RELEASE_BEHIND if there
 * is a newer one, RELEASE_FORKED if mirror and memory contradict each other, UNSAFE_FILE.
 */
export async function currentRelease(
  open: OpenChannel,
  { advice = "", newEpoch = false }: CurrentReleaseOptions = {},
): Promise<SignedManifest | null> {
  const current = await readCurrent(open, advice);
  if (current) open.memory.warnIfNew(open.onWarning);
  try {
    open.memory.expectNewest(open.channel, current, open.writer.directory);
    await expectNothingAfter(open, current);
  } catch (error) {
    if (!newEpoch || !(error instanceof PullError) || isUnsafe(error)) throw error;
    open.onWarning(`${error.code}: ${error.message}`);
  }
  return current;
}

/**
 * Throws RELEASE_BEHIND if the mirror itself retains a release that was made when a later one
 * than `current` was in force. A single later release proves nothing: a publish may have been
 * cut off before it came into force.
 */
async function expectNothingAfter(
  { writer, channel, trust }: OpenChannel,
  current: SignedManifest | null,
): Promise<void> {
  const here = current ? positionOf(current.manifest) : { epoch: 0, sequence: 0 };
  for (const { manifest } of await writer.retained.signedReleases(channel, trust)) {
    const before = manifest.history.releases.at(-1);
    if (!before || comparePositions(placeOf(before), here) <= 0) continue;
    throw new PullError(
      "RELEASE_BEHIND",
      `${writer.directory} retains release ${describePosition(positionOf(manifest))} of ${channel}, ` +
        `made when release ${describePosition(placeOf(before))} was in force; now it has ` +
        (current ? `release ${describePosition(here)} in force` : "no release in force") +
        ": it was set back. Bring the newer release there, or leave the numbers behind by " +
        "`publish --new-epoch REASON`",
    );
  }
}

/**
 * The places that the release after `current` must not take: what the memory knows, and drafts
 * and releases on the mirror. Of the latter only numbers without a gap count, since whoever can
 * write to the mirror could drive the numbers up with a file.
 */
export async function reservedPlaces(
  open: OpenChannel,
  current: SignedManifest | null,
): Promise<Position[]> {
  const { writer, memory, channel } = open;
  const places = memory.reserved(channel);
  const { epoch, sequence } = current ? positionOf(current.manifest) : { epoch: 0, sequence: 0 };
  const taken = new Set<number>();
  const add = (place: Position): void => {
    if (place.epoch === epoch) taken.add(place.sequence);
  };
  for (const { position } of await writer.retained.releases(channel)) add(position);
  for (const manifest of await draftsOn(open)) {
    if (manifest.channel === channel) add(positionOf(manifest));
  }
  const known = places.filter((place) => place.epoch === epoch).map((place) => place.sequence);
  let last = Math.max(sequence, ...known);
  while (taken.has(last + 1)) last += 1;
  return last > sequence ? [...places, { epoch, sequence: last }] : places;
}

/** The drafts on the mirror; none, with a warning, if something else lies among them. */
async function draftsOn({ writer, onWarning }: OpenChannel): Promise<ManifestPlace[]> {
  try {
    const places: ManifestPlace[] = [];
    for await (const { payload } of writer.retained.drafts()) places.push(placeUnverified(payload));
    return places;
  } catch (error) {
    if (!(error instanceof PullError)) throw error;
    onWarning(`drafts on the mirror reserve no number: ${error.code}: ${error.message}`);
    return [];
  }
}

async function readCurrent(
  { writer, channel, trust }: OpenChannel,
  advice: string,
): Promise<SignedManifest | null> {
  try {
    return await writer.currentRelease(channel, trust);
  } catch (cause) {
    if (isUnsafe(cause)) throw cause;
    throw new PullError(
      "PUBLISH_FAILED",
      `the current release of ${channel} cannot be read with these keys ` +
        `(${(cause as Error).message}); give its --public-key${advice}`,
      { cause },
    );
  }
}

/** Whether something else lies where a file belongs: nothing may then be built upon it or put there. */
export function isUnsafe(error: unknown): boolean {
  return error instanceof PullError && error.code === "UNSAFE_FILE";
}

import { pathToFileURL } from "node:url";
import { PullError } from "../../core/errors.ts";
import { openEnvelope } from "../../core/formats/envelope.ts";
import {
  comparePositions,
  describePosition,
  positionOf,
  type Position,
} from "../../core/formats/manifest.ts";
import type { PublicKey } from "../../core/formats/signing-key.ts";
import { expectChannel } from "../mirror/channels.ts";
import { RootDirectory, fileNamed } from "../../effects/files/root-directory.ts";
import { DirectoryMirror } from "../../effects/mirror/directory-mirror.ts";
import {
  MAX_MANIFEST_BYTES,
  RetainedReleases,
  describeRetained,
  digestIn,
} from "../mirror/retained-releases.ts";
import { releaseIn, retainedBefore, type FoundRelease } from "./release-before.ts";
import { seeDifference, type SeenDifference, type SeenRelease } from "./seen-difference.ts";
import { readSignedFile } from "./sign-release.ts";

/** Which releases are compared. */
export interface Comparison {
  /** The mirror's directory. It is only read. */
  readonly mirror: string;
  readonly channel: string;
  /** Sequence of the older one; the one before the newer if absent. */
  readonly from?: number | undefined;
  /** Sequence of the newer one; the one in force if absent. */
  readonly to?: number | undefined;
  /** A file with the newer one, instead of `to`. */
  readonly draft?: string | undefined;
  /** Keys of which one must have signed both; nothing is verified without any. */
  readonly publicKeys: readonly PublicKey[];
}

/** Two releases that were compared. */
export interface ComparedReleases {
  readonly release: SeenRelease;
  /** Null if no key was given to verify them with. */
  readonly signedBy: readonly string[] | null;
  readonly difference: SeenDifference;
}

/**
 * What a release or draft changes from an earlier release. Throws USAGE, PUBLISH_FAILED if the
 * mirror does not have one of them, UNSAFE_FILE, the MIRROR_ and the trust errors.
 */
export async function compareReleases(comparison: Comparison): Promise<ComparedReleases> {
  const { mirror, channel, from, to, draft, publicKeys } = comparison;
  const root = new RootDirectory(mirror);
  await expectChannel(root, channel);
  const retained = new RetainedReleases(root);
  const source = new DirectoryMirror(pathToFileURL(mirror).href, {
    manifestBytes: MAX_MANIFEST_BYTES,
  });
  const inForce = async (): Promise<Uint8Array> => {
    const answer = await source.readManifest(channel);
    if (answer.kind === "read") return answer.bytes;
    throw new PullError("MIRROR_STATUS", `${source.address}: expected a manifest, found none`);
  };
  const numbered = async (sequence: number, option: "--from" | "--to"): Promise<Uint8Array> => {
    const { epoch } = positionOf(releaseIn(await inForce()).manifest);
    return retainedAt(retained, channel, { epoch, sequence }, option);
  };
  const newer =
    draft !== undefined
      ? (await readSignedFile(fileNamed(draft))).bytes
      : to !== undefined
        ? await numbered(to, "--to")
        : await inForce();
  const release = releaseIn(newer);
  const trust = { publicKeys, threshold: 1 };
  const signedBy = publicKeys.length > 0 ? openEnvelope(newer, trust).signedBy : null;
  let before: SeenRelease | null;
  if (from !== undefined) {
    const older = await numbered(from, "--from");
    if (publicKeys.length > 0) openEnvelope(older, trust);
    before = releaseIn(older);
  } else {
    const named = await namedBefore(release, retained, inForce);
    if (named && publicKeys.length > 0) openEnvelope(named.envelope, trust);
    before = named;
  }
  return { release, signedBy, difference: await seeDifference(before, release, source) };
}

/** The release that another one names as the one before it, retained or in force. */
async function namedBefore(
  { manifest }: SeenRelease,
  retained: RetainedReleases,
  inForce: () => Promise<Uint8Array>,
): Promise<FoundRelease | null> {
  const found = await retainedBefore({ retained }, manifest);
  const last = manifest.history.releases.at(-1);
  if (found || !last) return found;
  const current = await inForce();
  return digestIn(current) === last.digest ? releaseIn(current) : null;
}

async function retainedAt(
  retained: RetainedReleases,
  channel: string,
  wanted: Position,
  option: "--from" | "--to",
): Promise<Uint8Array> {
  const all = await retained.releases(channel);
  const found = all.find(({ position }) => comparePositions(position, wanted) === 0);
  if (found) return retained.read(found.file);
  const known = all.map(({ position }) => position);
  throw new PullError(
    "PUBLISH_FAILED",
    `${option}: expected a release of ${channel} that is retained here, found ` +
      `${describePosition(wanted)}; ${describeRetained(known)}`,
  );
}

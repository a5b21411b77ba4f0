import { PullError } from "../../core/errors.ts";
import { readIndex } from "../../core/formats/archive-index.ts";
import { channelSchema, systemsIn, type Manifest } from "../../core/formats/manifest.ts";
import type { Clock, Mirror } from "../../core/ports.ts";
import type { Bucket } from "../../effects/mirror/bucket.ts";
import { RootDirectory } from "../../effects/files/root-directory.ts";
import { archiveFile, manifestFile, releaseFile } from "./mirror-reader.ts";
import type { Pruned } from "./prune-mirror.ts";
import { readArchiveIndex } from "./read-contents.ts";
import { MAX_MANIFEST_BYTES, manifestIn } from "./retained-releases.ts";

/** What is pruned, and by what. */
export interface PruneBucketOptions {
  readonly bucket: Bucket;
  /** The same bucket, as hosts read it. */
  readonly asMirror: Mirror;
  /** The mirror whose archives stay. */
  readonly sourceDirectory: string | null;
  readonly clock: Clock;
}

const ARCHIVE = /^archives\/([0-9a-f]{64})\.tar$/;

/**
 * Removes archives from a bucket that are not in the source's directory, and that no release in the
 * bucket needs, of whatever channel. What else is in the bucket is not touched. Throws
 * PUBLISH_FAILED if the needs of one of these releases cannot be told; then nothing is removed.
 */
export async function pruneBucket(options: PruneBucketOptions): Promise<Pruned> {
  const { bucket, sourceDirectory } = options;
  const kept = await neededThere(options);
  if (sourceDirectory !== null) {
    for (const { name } of await new RootDirectory(sourceDirectory).listIfExists("archives")) {
      kept.add(`archives/${name}`);
    }
  }
  const archives: string[] = [];
  let bytes = 0;
  let keptArchives = 0;
  for (const [name, size] of await bucket.list("archives/")) {
    const sha256 = ARCHIVE.exec(name)?.[1];
    if (sha256 === undefined) continue;
    if (kept.has(name)) {
      keptArchives += 1;
      continue;
    }
    await bucket.remove(name);
    archives.push(sha256);
    bytes += size;
  }
  return { releases: [], kept: [], archives: archives.sort(), bytes, keptArchives };
}

/** The archives that the bucket's releases need, by their names. */
async function neededThere(options: PruneBucketOptions): Promise<Set<string>> {
  const { bucket, clock } = options;
  const needed = new Set<string>();
  for (const name of (await bucket.list("channels/")).keys()) {
    const channel = /^channels\/([^/]+)\/manifest\.json$/.exec(name)?.[1];
    if (channel === undefined || !channelSchema.safeParse(channel).success) continue;
    const manifest = await addNeeds(needed, manifestFile(channel), options);
    for (const { digest, until } of manifest.supported ?? []) {
      if (Date.parse(until) <= clock.now().getTime()) continue;
      await addNeeds(needed, releaseFile(channel, digest), options);
    }
  }
  return needed;
}

/** Adds what one release needs; gives the release. */
async function addNeeds(
  needed: Set<string>,
  name: string,
  { bucket, asMirror }: PruneBucketOptions,
): Promise<Manifest> {
  try {
    const found = await bucket.read(name, MAX_MANIFEST_BYTES);
    if (!found) throw new PullError("MIRROR_NOT_FOUND", "it is gone");
    const manifest = manifestIn(found.bytes);
    /** Hosts with the same system have the same index. */
    const read = new Set<string>();
    for (const { system } of systemsIn(manifest)) {
      const { archive } = system;
      for (const patch of archive.index.patches ?? []) needed.add(archiveFile(patch.archive));
      if (read.has(archive.index.sha256)) continue;
      read.add(archive.index.sha256);
      needed.add(archiveFile(archive.sha256));
      const contents = readIndex(await readArchiveIndex(asMirror, archive), system, null);
      for (const other of contents.elsewhere) needed.add(archiveFile(other.archive.sha256));
    }
    return manifest;
  } catch (cause) {
    throw new PullError(
      "PUBLISH_FAILED",
      `nothing was removed: nobody can tell which archives ${name} in ${bucket.text} needs: ` +
        (cause as Error).message,
      { cause },
    );
  }
}

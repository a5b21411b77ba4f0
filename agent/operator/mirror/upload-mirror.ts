import { PullError, toPullError } from "../../core/errors.ts";
import type { OtherArchive } from "../../core/formats/archive-index.ts";
import { systemsIn } from "../../core/formats/manifest.ts";
import type { Mirror } from "../../core/ports.ts";
import type { Bucket, ObjectKind, ReadObject } from "../../effects/mirror/bucket.ts";
import type { WantedArchive } from "./archive-copy.ts";
import { chooseReleases, type ChosenRelease } from "./choose-releases.ts";
import type { CopiedChannel, CopiedMirror, CopyOptions } from "./copy-options.ts";
import { CopyPlan } from "./copy-plan.ts";
import { expectNoNewer } from "./expect-no-newer.ts";
import { KnownSystems } from "./known-systems.ts";
import { archiveFile, manifestFile, releaseFile, releasesDirectory } from "./mirror-reader.ts";
import { patchArchivesOf, readPatchArchive } from "./patch-archive.ts";
import { pruneBucket } from "./prune-bucket.ts";
import { MAX_MANIFEST_BYTES } from "./retained-releases.ts";

/** Never changes: its name is its hash. */
const ARCHIVE: ObjectKind = {
  contentType: "application/x-tar",
  cacheControl: "public, max-age=31536000, immutable",
};

/** The same, of an older release. */
const OLDER_RELEASE: ObjectKind = { ...ARCHIVE, contentType: "application/json" };

/** Changes with each release, so caches must ask again each time. */
const MANIFEST: ObjectKind = { contentType: "application/json", cacheControl: "no-cache" };

/** What is uploaded, from where to where. */
export interface UploadOptions extends Pick<
  CopyOptions,
  | "source"
  | "sourceDirectory"
  | "channels"
  | "trust"
  | "storeKeys"
  | "allowOlder"
  | "dryRun"
  | "clock"
  | "signal"
  | "onProgress"
  | "onWarning"
> {
  readonly bucket: Bucket;
  /** The same bucket, as hosts read it. */
  readonly asMirror: Mirror;
  /** Remove what is no longer needed. */
  readonly prune: boolean;
}

/** What a channel's manifest in the bucket was when the upload began. */
interface Before {
  readonly manifest: ReadObject | null;
  /** Of the release that it has; null if that cannot be told. */
  readonly digest: string | null;
}

/**
 * Copies the releases in force from a mirror into a bucket: what the bucket lacks, archives first and
 * each manifest last. Every archive has its hash, or does not appear, so this may end at any moment,
 * and the next upload continues. A manifest is replaced only if it is still the one that was there
 * when this began. Throws as `copyMirror`, ARCHIVE_PARTIAL if the source has not all that its
 * releases need, and PUBLISH_LOCKED if somebody else put a release into force meanwhile.
 */
export async function uploadMirror(options: UploadOptions): Promise<CopiedMirror> {
  const { bucket, source, dryRun, prune } = options;
  if (prune && options.sourceDirectory === null) {
    throw new PullError(
      "USAGE",
      "--prune: expected a directory to copy from; a server has no list",
    );
  }
  const everything = { ...options, hosts: null, reports: [], deltas: false };
  const { releases } = await chooseReleases(everything);
  expectWhole(releases, source.address);
  const before = new Map<string, Before>();
  for (const release of releases) {
    const { channel } = release;
    const manifest = await bucket.read(manifestFile(channel), MAX_MANIFEST_BYTES);
    const there = { place: bucket.text, envelope: manifest?.bytes ?? null };
    before.set(channel, { manifest, digest: expectNoNewer(there, release, options) });
  }
  const plan = new CopyPlan(everything, new KnownSystems(source));
  const channels: CopiedChannel[] = [];
  for (const release of releases) {
    for (const older of release.older) await plan.add(older);
    const hosts = await plan.add(release);
    const { channel, signed } = release;
    const expired = Date.parse(signed.manifest.expiresAt) <= options.clock.now().getTime();
    const isNews = before.get(channel)?.digest !== signed.digest;
    channels.push({ channel, signed, expired, isNews, hosts });
  }
  const there = await bucket.list("archives/");
  const { wanted, present } = await plan.missing({
    heldParts: ({ sha256, size }: OtherArchive) =>
      Promise.resolve(there.get(archiveFile(sha256)) === size ? null : undefined),
  });
  const bytes = wanted.reduce((sum, { size }) => sum + size, 0);
  const archives = { copied: wanted.length, present, bytes, patches: 0 };
  const copied = { channels, strangers: [], pruned: null };
  if (dryRun) return { ...copied, archives };
  await uploadArchives(wanted, bytes, options);
  const patches = await uploadPatches(releases, there, options);
  for (const release of releases) {
    await uploadOlder(release, bucket);
    await putIntoForce(release, before.get(release.channel)?.manifest ?? null, bucket);
  }
  const pruned = prune ? await pruneBucket(options) : null;
  return { ...copied, pruned, archives: { ...archives, patches } };
}

/** A host that reads a bucket has no other mirror's parts: the source has to have everything. */
function expectWhole(releases: readonly ChosenRelease[], place: string): void {
  for (const { channel, hosts, older } of releases) {
    if (hosts === null && older.every((one) => one.hosts === null)) continue;
    throw new PullError(
      "ARCHIVE_PARTIAL",
      `${place} was filled for some hosts of ${channel} only: expected a mirror with everything that its releases need`,
    );
  }
}

async function uploadArchives(
  wanted: readonly WantedArchive[],
  total: number,
  { bucket, source, signal, onProgress }: UploadOptions,
): Promise<void> {
  let done = 0;
  const counted = async function* (bytes: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of bytes) {
      yield piece;
      done += piece.length;
      onProgress({ phase: "copy", archives: wanted.length, bytes: done, ofBytes: total });
    }
  };
  for (const { sha256, size, ranges } of wanted) {
    if (ranges !== null) {
      throw new PullError(
        "ARCHIVE_PARTIAL",
        `${source.address} has only a part of archive ${sha256}: a bucket takes whole ones`,
      );
    }
    const read = source.readArchive(sha256, { from: 0, to: size }, signal);
    await bucket.upload(archiveFile(sha256), { size, sha256, source: counted(read) }, ARCHIVE);
  }
}

/**
 * Uploads the archives of index patches that the bucket lacks; gives how many. A host reads the whole
 * index if its patch is not there, so an archive that cannot be read is left out.
 */
async function uploadPatches(
  releases: readonly ChosenRelease[],
  there: ReadonlyMap<string, number>,
  { bucket, source, signal, onProgress }: UploadOptions,
): Promise<number> {
  const systems = releases.flatMap(({ signed }) =>
    systemsIn(signed.manifest).map(({ system }) => system),
  );
  let uploaded = 0;
  for (const sha256 of patchArchivesOf(systems)) {
    if (there.has(archiveFile(sha256))) continue;
    let bytes: Buffer;
    try {
      bytes = await readPatchArchive(source, sha256, signal);
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      if (code === "INTERRUPTED") throw thrown;
      onProgress({ phase: "patches", message });
      continue;
    }
    await bucket.put(archiveFile(sha256), bytes, ARCHIVE);
    uploaded++;
  }
  return uploaded;
}

/** Uploads the older releases that a release names for agents that lack what it requires. */
async function uploadOlder({ channel, older }: ChosenRelease, bucket: Bucket): Promise<void> {
  if (older.length === 0) return;
  const there = await bucket.list(`${releasesDirectory(channel)}/`);
  for (const { signed, envelope } of older) {
    const name = releaseFile(channel, signed.digest);
    if (there.get(name) !== envelope.length) await bucket.put(name, envelope, OLDER_RELEASE);
  }
}

/** Replaces the manifest: from then on hosts see the release. */
async function putIntoForce(
  { channel, envelope }: ChosenRelease,
  before: ReadObject | null,
  bucket: Bucket,
): Promise<void> {
  if (before?.bytes.equals(envelope)) return;
  const name = manifestFile(channel);
  const result = await bucket.replace(name, envelope, { before, kind: MANIFEST });
  if (result === "replaced") return;
  throw new PullError(
    "PUBLISH_LOCKED",
    `${bucket.text}: somebody else put a release of ${channel} into force during this upload, and ` +
      "it stays in force. The archives of this one are there, and nothing is lost. Run this again: " +
      "it says whether this release may follow that one",
  );
}

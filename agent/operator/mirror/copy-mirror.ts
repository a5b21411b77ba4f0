import { bytesInRanges } from "../../core/formats/byte-ranges.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import { entryOf, systemsOf } from "../../core/formats/manifest.ts";
import { packedAlso, packedOnly, type PackedHost } from "../../core/formats/stick-contents.ts";
import { ArchiveCopy, type WantedArchive } from "./archive-copy.ts";
import { channelsIn } from "./channels.ts";
import { chooseReleases, type ChosenRelease } from "./choose-releases.ts";
import type { CopiedChannel, CopiedHost, CopiedMirror, CopyOptions } from "./copy-options.ts";
import { CopyPlan } from "./copy-plan.ts";
import { expectNoNewer } from "./expect-no-newer.ts";
import { KnownSystems } from "./known-systems.ts";
import { MirrorReader } from "./mirror-reader.ts";
import { MirrorWriter } from "./mirror-writer.ts";
import { patchArchivesOf, readPatchArchive } from "./patch-archive.ts";
import { pruneOpened } from "./prune-mirror.ts";
import { digestOrNull } from "./retained-releases.ts";

/**
 * Copies the releases in force from a mirror into a directory, archives first and each manifest
 * last. Everything is verified on the way. A manifest gets its place only when everything that it
 * needs is on disk, so this may end at any moment, and the next copy continues. Throws
 * SEQUENCE_REPLAYED, SEQUENCE_CONFLICT or SEQUENCE_FORKED if the destination has a newer release,
 * another one of the same number, or one that this does not come after, the trust errors, the
 * MIRROR_ and ARCHIVE_ errors, DISK_FULL, PUBLISH_LOCKED, UNSAFE_FILE. With `dryRun`, nothing in the
 * destination is opened for writing.
 */
export async function copyMirror(options: CopyOptions): Promise<CopiedMirror> {
  const { keep, clock, dryRun } = options;
  const { releases, strangers } = await chooseReleases(options);
  const mirror = dryRun
    ? await MirrorReader.open(options.destination)
    : await MirrorWriter.open(options.destination, options.onWarning);
  try {
    const there = new Map<string, string | null>();
    for (const release of releases) {
      const found = {
        place: mirror.directory,
        envelope: await mirror.readEnvelope(release.channel),
      };
      there.set(release.channel, expectNoNewer(found, release, options));
    }
    const plan = new CopyPlan(options, await knownSystems(releases, options));
    const channels: CopiedChannel[] = [];
    /** What was copied of older releases, by their digests. */
    const olderHosts = new Map<string, readonly CopiedHost[]>();
    for (const release of releases) {
      for (const one of release.older) olderHosts.set(one.signed.digest, await plan.add(one));
      const before = there.get(release.channel) ?? null;
      channels.push(describeCopied(release, await plan.add(release), before, options));
    }
    const { wanted, present } = await plan.missing(mirror);
    const bytes = wanted.reduce((sum, one) => sum + bytesOf(one), 0);
    const archives = { copied: wanted.length, present, bytes, patches: 0 };
    if (!(mirror instanceof MirrorWriter)) return { channels, strangers, archives, pruned: null };
    await copyArchives(wanted, bytes, mirror, options);
    const patches = await copyPatches(releases, mirror, options);
    for (const [at, release] of releases.entries()) {
      for (const one of release.older) {
        await placeOlder(one, olderHosts.get(one.signed.digest) ?? [], mirror);
      }
      await putIntoForce(release, channels[at]?.hosts ?? [], mirror);
    }
    const pruned = keep === null ? null : await pruneOpened(mirror, { keep, clock });
    await forgetContents(mirror);
    return { channels, strangers, archives: { ...archives, patches }, pruned };
  } finally {
    await mirror.close();
  }
}

function describeCopied(
  { channel, signed }: ChosenRelease,
  hosts: readonly CopiedHost[],
  /** Digest of the release that the destination has. */
  there: string | null,
  { clock }: CopyOptions,
): CopiedChannel {
  return {
    ...{ channel, signed, hosts },
    expired: Date.parse(signed.manifest.expiresAt) <= clock.now().getTime(),
    isNews: there !== signed.digest,
  };
}

/** The systems of the chosen releases and of those that the source retains. */
async function knownSystems(
  releases: readonly ChosenRelease[],
  { source, sourceDirectory, reports, trust }: CopyOptions,
): Promise<KnownSystems> {
  const known = new KnownSystems(source);
  if (reports.length === 0) return known;
  for (const { signed } of releases) known.add(Object.values(signed.manifest.hosts));
  if (sourceDirectory !== null) await known.addRetained(sourceDirectory, trust);
  return known;
}

/** Bytes of the archive that are copied. */
function bytesOf({ size, ranges }: WantedArchive): number {
  return ranges === null ? size : bytesInRanges(ranges);
}

/** Left free for manifests and directories. */
const ROOM_TO_SPARE = 1024 * 1024;

/** Copies what the destination lacks. Throws DISK_FULL before, if it does not fit. */
async function copyArchives(
  wanted: readonly WantedArchive[],
  total: number,
  writer: MirrorWriter,
  { source, disk, signal, onProgress }: CopyOptions,
): Promise<void> {
  let done = 0;
  const copy = new ArchiveCopy(source, writer, {
    signal,
    onBytes: (count) => {
      done += count;
      onProgress({ phase: "copy", archives: wanted.length, bytes: done, ofBytes: total });
    },
  });
  await copy.prepare(wanted);
  done = await copy.resumable(wanted);
  const needed = Math.max(0, total - done) + (wanted.length > 0 ? ROOM_TO_SPARE : 0);
  const { free } = await disk.freeSpace(writer.directory);
  if (free < needed) {
    throw new PullError(
      "DISK_FULL",
      `${writer.directory}: expected ${needed} bytes free, found ${free}; nothing was copied`,
    );
  }
  for (const archive of wanted) await copy.copy(archive);
}

/**
 * Copies the archives of index patches; gives how many. A host reads the whole index if its patch
 * is not there, so an archive that cannot be read is left out. Hosts that reported get none: they
 * read their index from a stick, where it costs nothing.
 */
async function copyPatches(
  releases: readonly ChosenRelease[],
  writer: MirrorWriter,
  { source, reports, signal, onProgress }: CopyOptions,
): Promise<number> {
  if (reports.length > 0) return 0;
  const systems = releases.flatMap(({ signed: { manifest }, hosts }) =>
    (hosts ?? Object.keys(manifest.hosts)).flatMap((hostname) => {
      const entry = entryOf(manifest, hostname);
      return entry ? systemsOf(entry) : [];
    }),
  );
  const isHere = (sha256: string): Promise<boolean> =>
    readPatchArchive(writer.asMirror(), sha256, signal).then(
      () => true,
      () => false,
    );
  let copied = 0;
  for (const sha256 of patchArchivesOf(systems)) {
    if (await isHere(sha256)) continue;
    let bytes: Buffer;
    try {
      bytes = await readPatchArchive(source, sha256, signal);
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      if (code === "INTERRUPTED") throw thrown;
      onProgress({ phase: "patches", message });
      continue;
    }
    await writer.placeBytes(bytes, sha256);
    copied++;
  }
  return copied;
}

/** Writes the stick's contents, then an older release for hosts whose agents lack a feature. */
async function placeOlder(
  release: Omit<ChosenRelease, "older">,
  copied: readonly CopiedHost[],
  writer: MirrorWriter,
): Promise<void> {
  const { channel, envelope, signed } = release;
  const { manifest, digest } = signed;
  const current = await writer.readSupported(channel, digest);
  await noteContents(release, copied, writer, current !== null);
  await writer.retained.keep(manifest, envelope);
  await writer.placeSupported(channel, digest, envelope);
}

/** Writes the stick's contents, then the manifest: from then on hosts see the release. */
async function putIntoForce(
  release: ChosenRelease,
  copied: readonly CopiedHost[],
  writer: MirrorWriter,
): Promise<void> {
  const { channel, envelope, signed } = release;
  const { manifest, digest } = signed;
  const current = await writer.readEnvelope(channel);
  const isHere = current !== null && digestOrNull(current) === digest;
  await noteContents(release, copied, writer, isHere);
  await writer.retained.keep(manifest, envelope);
  if (current?.equals(envelope)) return;
  await writer.placeManifest(channel, envelope);
}

/** Writes down for which hosts a release was packed, if it is not for all that they need. */
async function noteContents(
  { signed, hosts }: Omit<ChosenRelease, "older">,
  copied: readonly CopiedHost[],
  writer: MirrorWriter,
  isHere: boolean,
): Promise<void> {
  const isPart = hosts !== null || copied.some(({ members }) => members !== null);
  const packed = new Map<string, PackedHost>(
    copied.map(({ hostname, members }) => [hostname, { members }]),
  );
  const contents = await writer.stickContents();
  const next = packedAlso(contents, signed.digest, isPart ? packed : null, isHere);
  if (JSON.stringify(next) !== JSON.stringify(contents)) await writer.writeStickContents(next);
}

/** Removes releases from the stick's contents that are no longer there. */
async function forgetContents(writer: MirrorWriter): Promise<void> {
  const contents = await writer.stickContents();
  if (Object.keys(contents.releases).length === 0) return;
  const digests = new Set<string>();
  for (const channel of await channelsIn(writer.root)) {
    const envelope = await writer.readEnvelope(channel);
    const digest = envelope && digestOrNull(envelope);
    if (digest !== null) digests.add(digest);
    for (const release of await writer.retained.releases(channel)) {
      const known = digestOrNull(await writer.retained.read(release.file));
      if (known !== null) digests.add(known);
    }
  }
  const next = packedOnly(contents, digests);
  if (JSON.stringify(next) !== JSON.stringify(contents)) await writer.writeStickContents(next);
}

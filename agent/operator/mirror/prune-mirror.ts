import { readIndex } from "../../core/formats/archive-index.ts";
import { PullError } from "../../core/errors.ts";
import {
  comparePositions,
  haveOtherSystems,
  positionOf,
  systemsIn,
  type Manifest,
  type ReleasedSystem,
  type SupportedRelease,
} from "../../core/formats/manifest.ts";
import { parseUnverified } from "../../core/formats/manifest-reader.ts";
import { packedHosts, type StickContents } from "../../core/formats/stick-contents.ts";
import type { Clock } from "../../core/ports.ts";
import { RootDirectory } from "../../effects/files/root-directory.ts";
import { channelsIn } from "./channels.ts";
import {
  MirrorReader,
  PUBLISHER,
  archiveFile,
  releasesDirectory,
  thinFile,
} from "./mirror-reader.ts";
import { MirrorWriter, leftAlone } from "./mirror-writer.ts";
import { DRAFTS, RELEASES, digestIn, digestOrNull, manifestIn } from "./retained-releases.ts";
import { supportedEnvelope } from "./supported-releases.ts";

export interface PruneOptions {
  /** Directory of the mirror. */
  readonly mirror: string;
  /**
   * How many releases of each channel stay, the one in force included. Of those that follow each
   * other with the same systems only the newest counts, and stays: a refresh, a pause or an edit
   * must not cost the release that an abort goes back to.
   */
  readonly keep: number;
  /** Say what would be removed, and remove nothing. */
  readonly dryRun: boolean;
  readonly clock: Clock;
  /** Hears of files that nobody of us made, and that are left. */
  readonly onWarning: (message: string) => void;
}

/** What was removed, or would be. */
export interface Pruned {
  /** Releases that are no longer retained. */
  readonly releases: readonly Omit<ForgottenRelease, "file">[];
  /** Releases that stay: by channel the one in force, then older ones, newest first. */
  readonly kept: readonly KeptRelease[];
  /** Archives that no release needs any more, by sha256. */
  readonly archives: readonly string[];
  readonly bytes: number;
  /** Archives that are left. */
  readonly keptArchives: number;
}

/**
 * Removes the archives that no retained release names. Of each channel the release in force and
 * those before it stay, `keep` with different systems in all, beside them the older ones that it names for agents that lack
 * what it requires, and drafts that may still come into force. Other files of
 * the mirror are not touched. Releases are forgotten before their archives are removed, so a
 * known release has its archives, whenever this is stopped. With `dryRun`, nothing is opened for
 * writing. Throws USAGE if no release lies there, PUBLISH_LOCKED, UNSAFE_FILE, and PUBLISH_FAILED if the needs of a release cannot
 * be told.
 */
export async function pruneMirror(options: PruneOptions): Promise<Pruned> {
  // Nothing is made in a directory that nobody published to.
  await expectOneOf(new RootDirectory(options.mirror), ["channels", PUBLISHER]);
  const mirror = options.dryRun
    ? await MirrorReader.open(options.mirror)
    : await MirrorWriter.open(options.mirror, options.onWarning);
  try {
    return mirror instanceof MirrorWriter
      ? await pruneOpened(mirror, options)
      : (await planPruning(mirror, options, options.onWarning)).pruned;
  } finally {
    await mirror.close();
  }
}

/** The same, in a mirror that is taken for writing already. */
export async function pruneOpened(
  writer: MirrorWriter,
  options: Pick<PruneOptions, "keep" | "clock">,
): Promise<Pruned> {
  const plan = await planPruning(writer, options, writer.onWarning);
  const { forgotten, unsupported, unneeded, pruned } = plan;
  for (const file of unsupported) {
    if (await writer.root.removeRegularFile(file)) await writer.root.syncParent(file);
  }
  for (const file of forgotten) await writer.retained.forget(file);
  for (const file of unneeded) await writer.root.removeRegularFile(file);
  await writer.root.syncNames("archives");
  return pruned;
}

/**
 * A directory without any release is not a mirror, or one that lost its releases: then no archive
 * would seem to be needed. Throws USAGE, UNSAFE_FILE.
 */
async function expectOneOf(root: RootDirectory, names: readonly string[]): Promise<void> {
  for (const name of names) {
    if ((await root.listIfExists(name)).length > 0) return;
  }
  throw new PullError(
    "USAGE",
    `expected a mirror's directory, found no release in ${root.path}: nothing was removed`,
  );
}

/** What pruning comes to, and the files, below the mirror's directory, that it removes. */
interface PruningPlan {
  /** Releases and drafts. */
  readonly forgotten: readonly string[];
  /** Copies of older releases for hosts that no release names any more. */
  readonly unsupported: readonly string[];
  /** Archives. */
  readonly unneeded: readonly string[];
  readonly pruned: Pruned;
}

/** A release that stays. */
export interface KeptRelease {
  readonly channel: string;
  readonly epoch: number;
  readonly sequence: number;
  readonly inForce: boolean;
}

/** Decides what is removed. Changes nothing. */
async function planPruning(
  mirror: MirrorReader,
  { keep, clock }: Pick<PruneOptions, "keep" | "clock">,
  onWarning: (message: string) => void,
): Promise<PruningPlan> {
  await expectOneOf(mirror.root, ["channels", RELEASES, DRAFTS]);
  const needs = new ArchiveNeeds(mirror, await mirror.stickContents());
  const inForce = await currentManifests(mirror);
  for (const release of inForce.values()) await needs.add(release, "in force");
  const drafts = await pastDrafts(mirror, inForce, needs, clock);
  const supported = await needs.addSupported(clock.now(), onWarning);
  const older = await olderReleases(mirror, inForce, needs, { keep, supported });
  const forgotten = [...older.forgotten, ...drafts];
  const { unneeded, bytes, keptArchives } = await sortArchives(mirror, needs.archives, onWarning);
  const releases = forgotten.map(({ file: _, ...release }) => release);
  const archives = unneeded.map(({ sha256 }) => sha256).sort();
  return {
    forgotten: forgotten.map(({ file }) => file),
    unsupported: await unsupportedFiles(mirror, supported),
    unneeded: unneeded.map(({ file }) => file),
    pruned: { releases, kept: older.kept, archives, bytes, keptArchives },
  };
}

/** A release in force, or a draft, with what names it. */
interface NamedRelease {
  readonly manifest: Manifest;
  readonly digest: string;
}

/** A release that is retained no longer. */
interface ForgottenRelease {
  readonly channel: string;
  readonly sequence: number;
  /** True if it never came into force: a release may have the same number. */
  readonly draft: boolean;
  readonly file: string;
}

/** The manifest in force of every channel of the mirror. Throws PUBLISH_FAILED. */
async function currentManifests(mirror: MirrorReader): Promise<Map<string, NamedRelease>> {
  const manifests = new Map<string, NamedRelease>();
  for (const entry of await mirror.root.listIfExists("channels")) {
    if (entry.isFile()) continue;
    const channel = entry.name;
    const envelope = await mirror.readEnvelope(channel);
    if (!envelope) continue;
    try {
      manifests.set(channel, { manifest: manifestIn(envelope), digest: digestIn(envelope) });
    } catch (cause) {
      throw new PullError(
        "PUBLISH_FAILED",
        `nothing was removed: ${mirror.manifestPath(channel)} cannot be read, so nobody can ` +
          `tell which archives it needs (${(cause as Error).message})`,
        { cause },
      );
    }
  }
  return manifests;
}

/**
 * The releases of each channel that stay, and those that do not: beyond the newest `keep`, those
 * whose systems are also in the one after them, and incomplete ones.
 */
async function olderReleases(
  mirror: MirrorReader,
  inForce: ReadonlyMap<string, NamedRelease>,
  needs: ArchiveNeeds,
  { keep, supported }: { readonly keep: number; readonly supported: ReadonlySet<string> },
): Promise<{ forgotten: ForgottenRelease[]; kept: KeptRelease[] }> {
  const forgotten: ForgottenRelease[] = [];
  const kept: KeptRelease[] = [];
  for (const channel of new Set([...inForce.keys(), ...(await mirror.retained.channels())])) {
    const current = inForce.get(channel)?.manifest;
    if (current) kept.push({ channel, ...positionOf(current), inForce: true });
    const older = (await mirror.retained.releases(channel)).filter(
      ({ position }) => !current || comparePositions(position, positionOf(current)) !== 0,
    );
    let places = keep - (current ? 1 : 0);
    let after = current;
    for (const { position, file } of older) {
      const digest = supported.size > 0 ? digestOrNull(await mirror.retained.read(file)) : null;
      if (digest !== null && supported.has(digest)) {
        kept.push({ channel, ...position, inForce: false });
        continue;
      }
      const others = places > 0 ? await needs.addIfOthers(file, after) : null;
      if (others) {
        places -= 1;
        after = others;
        kept.push({ channel, ...position, inForce: false });
      } else forgotten.push({ channel, sequence: position.sequence, draft: false, file });
    }
  }
  return { forgotten, kept };
}

/** The older releases below `channels` that no release names for agents any more. */
async function unsupportedFiles(
  mirror: MirrorReader,
  supported: ReadonlySet<string>,
): Promise<string[]> {
  const files: string[] = [];
  for (const channel of await channelsIn(mirror.root)) {
    const directory = releasesDirectory(channel);
    for (const { name } of await mirror.root.listIfExists(directory)) {
      const digest = /^([0-9a-f]{64})\.json$/.exec(name)?.[1];
      if (digest !== undefined && !supported.has(digest)) files.push(`${directory}/${name}`);
    }
  }
  return files;
}

/** Drafts that cannot come into force any more. What the others need is added to `needs`. */
async function pastDrafts(
  mirror: MirrorReader,
  inForce: ReadonlyMap<string, NamedRelease>,
  needs: ArchiveNeeds,
  clock: Clock,
): Promise<ForgottenRelease[]> {
  const past: ForgottenRelease[] = [];
  for await (const { payload, file } of mirror.retained.drafts()) {
    const manifest = parseUnverified(payload);
    const { channel, sequence, expiresAt } = manifest;
    const current = inForce.get(channel)?.manifest;
    const isPast =
      Date.parse(expiresAt) <= clock.now().getTime() ||
      (current && comparePositions(positionOf(manifest), positionOf(current)) <= 0);
    if (isPast) past.push({ channel, sequence, draft: true, file });
    else await needs.add({ manifest, digest: null }, "a draft");
  }
  return past;
}

/** The archives of the mirror, divided into those that are needed and those that are not. */
async function sortArchives(
  mirror: MirrorReader,
  needed: ReadonlySet<string>,
  onWarning: (message: string) => void,
): Promise<{
  unneeded: { sha256: string; file: string }[];
  bytes: number;
  keptArchives: number;
}> {
  const unneeded: { sha256: string; file: string }[] = [];
  let bytes = 0;
  let keptArchives = 0;
  for (const { name } of await mirror.root.listIfExists("archives")) {
    const sha256 = /^([0-9a-f]{64})\.(tar|thin)$/.exec(name)?.[1];
    if (sha256 === undefined) continue;
    if (needed.has(sha256)) {
      keptArchives++;
      continue;
    }
    const file = `archives/${name}`;
    const found = await mirror.root.stat(file);
    if (!found?.isFile()) {
      onWarning(leftAlone(mirror.root.nameOf(file)));
      continue;
    }
    unneeded.push({ sha256, file });
    bytes += found.size;
  }
  return { unneeded, bytes, keptArchives };
}

/** Gathers which archives releases need. */
class ArchiveNeeds {
  readonly #mirror: MirrorReader;
  readonly #contents: StickContents;
  readonly #archives = new Set<string>();
  /** What the releases name for agents that lack what they require. */
  readonly #supported: { channel: string; release: SupportedRelease }[] = [];
  /** Apart from `#archives`: an archive may be needed before its own index is read. */
  readonly #read = new Set<string>();

  constructor(mirror: MirrorReader, contents: StickContents) {
    this.#mirror = mirror;
    this.#contents = contents;
  }

  /** By sha256. */
  get archives(): ReadonlySet<string> {
    return this.#archives;
  }

  /**
   * Adds the archives of all hosts of a release, or of those that the stick was filled for. A
   * draft has no digest. Throws PUBLISH_FAILED if they cannot be told.
   */
  async add(
    { manifest, digest }: { manifest: Manifest; digest: string | null },
    what: string,
  ): Promise<void> {
    const packed = digest === null ? null : packedHosts(this.#contents, digest);
    for (const release of manifest.supported ?? []) {
      this.#supported.push({ channel: manifest.channel, release });
    }
    for (const { hostname, system } of systemsIn(manifest)) {
      for (const { archive } of system.archive.index.patches ?? []) this.#archives.add(archive);
      if (packed?.has(hostname) === false || this.#read.has(system.archive.sha256)) continue;
      try {
        for (const sha256 of await this.#archivesOf(system)) this.#archives.add(sha256);
        this.#read.add(system.archive.sha256);
      } catch (cause) {
        throw new PullError(
          "PUBLISH_FAILED",
          `nothing was removed: the index of ${hostname}, release ${manifest.sequence} of ` +
            `${manifest.channel} (${what}), cannot be read: ${(cause as Error).message}`,
          { cause },
        );
      }
    }
  }

  /**
   * Adds what older agents need on their way out: the older releases that those which were added
   * name, as long as they are supported. Gives their digests. Throws PUBLISH_FAILED if the needs of
   * one of them cannot be told.
   */
  async addSupported(now: Date, onWarning: (message: string) => void): Promise<Set<string>> {
    const digests = new Set<string>();
    for (const { channel, release } of [...this.#supported]) {
      const { digest, sequence, until } = release;
      if (Date.parse(until) <= now.getTime() || digests.has(digest)) continue;
      const envelope = await supportedEnvelope(this.#mirror, channel, digest);
      if (envelope) {
        digests.add(digest);
        await this.add({ manifest: manifestIn(envelope), digest }, "supported for older agents");
      } else {
        const message = `release ${sequence} of ${channel} is supported until ${until}, and is gone`;
        onWarning(message);
      }
    }
    return digests;
  }

  /**
   * An older release that can still be served and has other systems than the one `after` it. Adds
   * what it needs. Null for every other release.
   */
  async addIfOthers(file: string, after: Manifest | undefined): Promise<Manifest | null> {
    // A link there is an error; what a file holds is not.
    const envelope = await this.#mirror.retained.read(file);
    const archives = new Set<string>();
    const patches = new Set<string>();
    let manifest: Manifest;
    try {
      manifest = manifestIn(envelope);
      if (after && !haveOtherSystems(after, manifest)) return null;
      const packed = packedHosts(this.#contents, digestIn(envelope));
      for (const { hostname, system } of systemsIn(manifest)) {
        if (packed?.has(hostname) === false) continue;
        // Patches are kept but not required: without them hosts read the whole index.
        for (const { archive } of system.archive.index.patches ?? []) patches.add(archive);
        for (const sha256 of await this.#archivesOf(system)) archives.add(sha256);
      }
      for (const sha256 of archives) {
        const { root } = this.#mirror;
        const isHere =
          (await root.statFile(archiveFile(sha256))) ?? (await root.statFile(thinFile(sha256)));
        if (!isHere) return null;
      }
    } catch {
      return null;
    }
    for (const sha256 of [...archives, ...patches]) this.#archives.add(sha256);
    return manifest;
  }

  /** The archive of a system and those that its index names. */
  async #archivesOf(system: ReleasedSystem): Promise<string[]> {
    const compressed = await this.#mirror.readIndex(system.archive);
    const contents = readIndex(compressed, system, null);
    return [contents.sha256, ...contents.elsewhere.map(({ archive }) => archive.sha256)];
  }
}

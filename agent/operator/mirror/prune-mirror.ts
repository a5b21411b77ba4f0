import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { readIndex } from "../../core/formats/archive-index.ts";
import { PullError } from "../../core/errors.ts";
import {
  comparePositions,
  positionOf,
  systemsIn,
  type Manifest,
  type ReleasedSystem,
} from "../../core/formats/manifest.ts";
import { packedHosts, type StickContents } from "../../core/formats/stick-contents.ts";
import type { Clock } from "../../core/ports.ts";
import { isNotFound, syncDirectory } from "../../effects/files/durable-file.ts";
import { MirrorWriter } from "./mirror-writer.ts";
import { digestIn, manifestIn } from "./retained-releases.ts";

export interface PruneOptions {
  /** Directory of the mirror. */
  readonly mirror: string;
  /** Releases of each channel that are retained, the one in force included. */
  readonly keep: number;
  /** Say what would be removed, and remove nothing. */
  readonly dryRun: boolean;
  readonly clock: Clock;
}

export interface Pruned {
  /** Releases that are no longer retained. */
  readonly releases: readonly { readonly channel: string; readonly sequence: number }[];
  /** Archives that nothing needs any more. */
  readonly archives: readonly string[];
  readonly bytes: number;
  /** Archives that are left. */
  readonly keptArchives: number;
}

/**
 * Removes the archives that no retained release names: of each channel the one in force
 * and those before it, `keep` in all, and drafts that can still come into force. What
 * the mirror holds besides is not touched. Releases are forgotten first, so that one that
 * is known has its archives, whenever this is stopped. Throws PUBLISH_LOCKED, and
 * PUBLISH_FAILED where it cannot be known what a release needs.
 */
export async function pruneMirror(options: PruneOptions): Promise<Pruned> {
  const writer = await MirrorWriter.open(options.mirror);
  try {
    return await pruneOpened(writer, options);
  } finally {
    await writer.close();
  }
}

/** The same in a mirror that is taken for writing already. */
export async function pruneOpened(
  writer: MirrorWriter,
  options: Omit<PruneOptions, "mirror">,
): Promise<Pruned> {
  const packing = await writer.stickContents();
  const needs: Needs = { archives: new Set(), read: new Set() };
  const needed = needs.archives;
  const forgotten: { channel: string; sequence: number; file: string }[] = [];
  const inForce = await currentManifests(writer);
  for (const { manifest, digest } of inForce.values()) {
    const hosts = packedHosts(packing, digest);
    await need(writer, manifest, hosts, needs, "in force");
  }

  for (const channel of new Set([...inForce.keys(), ...(await writer.retained.channels())])) {
    const current = inForce.get(channel)?.manifest;
    const older = (await writer.retained.releases(channel)).filter(
      ({ position }) => !current || comparePositions(position, positionOf(current)) !== 0,
    );
    const places = options.keep - (current ? 1 : 0);
    for (const [at, { envelope, position, file }] of older.entries()) {
      const kept = at < places && (await isComplete(writer, envelope, packing, needed));
      if (!kept) forgotten.push({ channel, sequence: position.sequence, file });
    }
  }
  for (const { manifest, file } of await writer.retained.drafts()) {
    const current = inForce.get(manifest.channel)?.manifest;
    const isPast =
      Date.parse(manifest.expiresAt) <= options.clock.now().getTime() ||
      (current && comparePositions(positionOf(manifest), positionOf(current)) <= 0);
    if (isPast) forgotten.push({ channel: manifest.channel, sequence: manifest.sequence, file });
    else await need(writer, manifest, null, needs, "a draft");
  }

  const directory = join(writer.directory, "archives");
  const unneeded: string[] = [];
  const files: string[] = [];
  let bytes = 0;
  let keptArchives = 0;
  for (const name of await readdir(directory)) {
    const sha256 = /^([0-9a-f]{64})\.(tar|thin)$/.exec(name)?.[1];
    if (sha256 === undefined) continue;
    if (needed.has(sha256)) {
      keptArchives++;
      continue;
    }
    unneeded.push(sha256);
    files.push(join(directory, name));
    bytes += (await stat(join(directory, name))).size;
  }
  if (!options.dryRun) {
    for (const { file } of forgotten) await writer.retained.forget(file);
    for (const file of files) await rm(file, { force: true });
    await syncDirectory(directory);
  }
  const releases = forgotten.map(({ channel, sequence }) => ({ channel, sequence }));
  return { releases, archives: unneeded.sort(), bytes, keptArchives };
}

/** What is needed so far. */
interface Needs {
  readonly archives: Set<string>;
  /** Those whose index was read: one that another host has NARs in names others itself. */
  readonly read: Set<string>;
}

/** The manifest in force of every channel of the mirror. */
async function currentManifests(
  writer: MirrorWriter,
): Promise<Map<string, { manifest: Manifest; digest: string }>> {
  const manifests = new Map<string, { manifest: Manifest; digest: string }>();
  const channels = await readdir(join(writer.directory, "channels")).catch((error: unknown) => {
    if (isNotFound(error)) return [];
    throw error;
  });
  for (const channel of channels) {
    const envelope = await writer.readEnvelope(channel);
    if (!envelope) continue;
    try {
      manifests.set(channel, { manifest: manifestIn(envelope), digest: digestIn(envelope) });
    } catch (cause) {
      throw new PullError(
        "PUBLISH_FAILED",
        `nothing was removed: what ${writer.manifestPath(channel)} needs cannot be told ` +
          `(${(cause as Error).message})`,
        { cause },
      );
    }
  }
  return manifests;
}

/** Adds the archives of all hosts of a release, or of those packed. Throws PUBLISH_FAILED where they cannot be told. */
async function need(
  writer: MirrorWriter,
  manifest: Manifest,
  packed: ReadonlyMap<string, unknown> | null,
  needs: Needs,
  what: string,
): Promise<void> {
  for (const { hostname, system } of systemsIn(manifest)) {
    for (const { archive } of system.archive.index.patches ?? []) needs.archives.add(archive);
    if (packed?.has(hostname) === false || needs.read.has(system.archive.sha256)) continue;
    try {
      for (const sha256 of await archivesOf(writer, system)) needs.archives.add(sha256);
      needs.read.add(system.archive.sha256);
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

/** Whether an older release can still be served, and then what it needs. */
async function isComplete(
  writer: MirrorWriter,
  envelope: Uint8Array,
  packing: StickContents,
  needed: Set<string>,
): Promise<boolean> {
  const archives = new Set<string>();
  const patches = new Set<string>();
  try {
    const manifest = manifestIn(envelope);
    const packed = packedHosts(packing, digestIn(envelope));
    for (const { hostname, system } of systemsIn(manifest)) {
      if (packed?.has(hostname) === false) continue;
      // Kept, but not asked for: without a patch an index is read whole.
      for (const { archive } of system.archive.index.patches ?? []) patches.add(archive);
      for (const sha256 of await archivesOf(writer, system)) archives.add(sha256);
    }
    for (const sha256 of archives) {
      await stat(writer.archivePath(sha256)).catch(() => stat(writer.thinPath(sha256)));
    }
  } catch {
    return false;
  }
  for (const sha256 of [...archives, ...patches]) needed.add(sha256);
  return true;
}

/** The archive of a system and those that its index names. */
async function archivesOf(writer: MirrorWriter, system: ReleasedSystem): Promise<string[]> {
  const contents = readIndex(await writer.readIndex(system.archive), system, null);
  return [contents.sha256, ...contents.elsewhere.map(({ archive }) => archive.sha256)];
}

import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { readIndex } from "../core/archive-index.ts";
import { PullError } from "../core/errors.ts";
import { comparePositions, positionOf, type HostEntry, type Manifest } from "../core/manifest.ts";
import type { Clock } from "../core/ports.ts";
import { isNotFound, syncDirectory } from "../effects/durable-file.ts";
import { MirrorWriter } from "./mirror-writer.ts";
import { manifestIn } from "./release-shelf.ts";

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
    return await prune(writer, options);
  } finally {
    await writer.close();
  }
}

async function prune(writer: MirrorWriter, options: PruneOptions): Promise<Pruned> {
  const needed = new Set<string>();
  const forgotten: { channel: string; sequence: number; file: string }[] = [];
  const inForce = await currentManifests(writer);
  for (const manifest of inForce.values()) await need(writer, manifest, needed, "in force");

  for (const channel of new Set([...inForce.keys(), ...(await writer.shelf.channels())])) {
    const current = inForce.get(channel);
    const older = (await writer.shelf.releases(channel)).filter(
      ({ position }) => !current || comparePositions(position, positionOf(current)) !== 0,
    );
    const places = options.keep - (current ? 1 : 0);
    for (const [at, { envelope, position, file }] of older.entries()) {
      const kept = at < places && (await isComplete(writer, envelope, needed));
      if (!kept) forgotten.push({ channel, sequence: position.sequence, file });
    }
  }
  for (const { manifest, file } of await writer.shelf.drafts()) {
    const current = inForce.get(manifest.channel);
    const isPast =
      Date.parse(manifest.expiresAt) <= options.clock.now().getTime() ||
      (current && comparePositions(positionOf(manifest), positionOf(current)) <= 0);
    if (isPast) forgotten.push({ channel: manifest.channel, sequence: manifest.sequence, file });
    else await need(writer, manifest, needed, "a draft");
  }

  const directory = join(writer.directory, "archives");
  const unneeded: string[] = [];
  let bytes = 0;
  let keptArchives = 0;
  for (const name of await readdir(directory)) {
    const sha256 = /^([0-9a-f]{64})\.tar$/.exec(name)?.[1];
    if (sha256 === undefined) continue;
    if (needed.has(sha256)) {
      keptArchives++;
      continue;
    }
    unneeded.push(sha256);
    bytes += (await stat(join(directory, name))).size;
  }
  if (!options.dryRun) {
    for (const { file } of forgotten) await writer.shelf.forget(file);
    for (const sha256 of unneeded) await rm(writer.archivePath(sha256), { force: true });
    await syncDirectory(directory);
  }
  const releases = forgotten.map(({ channel, sequence }) => ({ channel, sequence }));
  return { releases, archives: unneeded.sort(), bytes, keptArchives };
}

/** The manifest in force of every channel of the mirror. */
async function currentManifests(writer: MirrorWriter): Promise<Map<string, Manifest>> {
  const manifests = new Map<string, Manifest>();
  const channels = await readdir(join(writer.directory, "channels")).catch((error: unknown) => {
    if (isNotFound(error)) return [];
    throw error;
  });
  for (const channel of channels) {
    const envelope = await writer.readEnvelope(channel);
    if (!envelope) continue;
    try {
      manifests.set(channel, manifestIn(envelope));
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

/** Adds the archives of all hosts of a release. Throws PUBLISH_FAILED where they cannot be told. */
async function need(
  writer: MirrorWriter,
  manifest: Manifest,
  needed: Set<string>,
  what: string,
): Promise<void> {
  for (const [hostname, entry] of Object.entries(manifest.hosts)) {
    for (const { archive } of entry.archive.index.patches ?? []) needed.add(archive);
    if (needed.has(entry.archive.sha256)) continue;
    try {
      for (const sha256 of await archivesOf(writer, entry)) needed.add(sha256);
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
  needed: Set<string>,
): Promise<boolean> {
  const archives = new Set<string>();
  try {
    const manifest = manifestIn(envelope);
    for (const entry of Object.values(manifest.hosts)) {
      for (const { archive } of entry.archive.index.patches ?? []) archives.add(archive);
      for (const sha256 of await archivesOf(writer, entry)) archives.add(sha256);
    }
    for (const sha256 of archives) await stat(writer.archivePath(sha256));
  } catch {
    return false;
  }
  for (const sha256 of archives) needed.add(sha256);
  return true;
}

/** The archive of a host and those that its index names. */
async function archivesOf(writer: MirrorWriter, entry: HostEntry): Promise<string[]> {
  const contents = readIndex(await writer.readIndex(entry.archive), entry, null);
  return [contents.sha256, ...contents.elsewhere.map(({ archive }) => archive.sha256)];
}

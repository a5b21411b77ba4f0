import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readFile, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { ArchiveContents, OtherArchive } from "../../core/formats/archive-index.ts";
import type { ByteRange } from "../../core/formats/byte-ranges.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import {
  readManifest,
  type ArchiveReference,
  type ReleasedSystem,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { Sha256 } from "../../core/formats/sha256.ts";
import { STICK_CONTENTS_FILE, type StickContents } from "../../core/formats/stick-contents.ts";
import { DirectoryMirror } from "../../effects/mirror/directory-mirror.ts";
import { readStickContents } from "../../effects/report/stick-contents-file.ts";
import { removeDurably, syncDirectory, writeDurably } from "../../effects/files/durable-file.ts";
import { ifMissing } from "../../effects/files/missing-file.ts";
import { tryLock, type ProcessLock } from "../../effects/process/process-lock.ts";
import { readArchiveIndex, readContents } from "./read-contents.ts";
import { RetainedReleases } from "./retained-releases.ts";

/** What the name of a publish's working directory begins with. */
const WORK = "work-";

/** As long as an envelope may be: hosts' shorter limit is not for the publisher's own mirror. */
const MAX_MANIFEST_BYTES = 256 * 1024 * 1024;

/**
 * A mirror directory that is taken for writing. Archives get their place, named by their hash,
 * by rename. The manifest is replaced last. Everything unfinished lies in `.publish`, which no
 * host reads and which the next publish removes.
 */
export class MirrorWriter {
  readonly directory: string;
  /** A directory of this publish's own, removed at the end. */
  readonly work: string;
  /** Releases that were published here and not pruned. */
  readonly retained: RetainedReleases;
  readonly #lock: ProcessLock;

  private constructor(directory: string, work: string, lock: ProcessLock) {
    this.directory = directory;
    this.work = work;
    this.retained = new RetainedReleases(join(directory, ".publish"));
    this.#lock = lock;
  }

  /** Takes the mirror for writing. Throws PUBLISH_LOCKED if another publish has it. */
  static async open(directory: string): Promise<MirrorWriter> {
    await mkdir(join(directory, ".publish"), { recursive: true });
    await mkdir(join(directory, "archives"), { recursive: true });
    const lock = await tryLock(join(directory, ".publish", "lock"));
    if (!lock) {
      throw new PullError("PUBLISH_LOCKED", `another publish writes to ${directory}; wait for it`);
    }
    // A program that a killed publish started may still write to its old directory, so every
    // publish takes a new name.
    const parent = join(directory, ".publish");
    for (const name of await readdir(parent)) {
      if (name.startsWith(WORK)) await rm(join(parent, name), { recursive: true, force: true });
    }
    return new MirrorWriter(directory, await mkdtemp(join(parent, WORK)), lock);
  }

  /** Removes the working directory and lets others write. */
  async close(): Promise<void> {
    await rm(this.work, { recursive: true, force: true });
    await this.#lock.release();
  }

  /** Where an archive lies that is here whole. */
  archivePath(sha256: string): string {
    return join(this.directory, "archives", `${sha256}.tar`);
  }

  /** Where hosts read a channel's manifest. */
  manifestPath(channel: string): string {
    return join(this.directory, "channels", channel, "manifest.json");
  }

  /** The channel's release in force, or null if there is none. Throws the trust errors. */
  async currentRelease(channel: string, trust: TrustPolicy): Promise<SignedManifest | null> {
    const bytes = await this.readEnvelope(channel);
    return bytes && readManifest(bytes, trust);
  }

  /** The bytes of the channel's manifest, not verified, or null if there is none. */
  async readEnvelope(channel: string): Promise<Buffer | null> {
    return ifMissing(readFile(this.manifestPath(channel)), null);
  }

  /** Whether the archive is in place with its size. */
  async hasArchive(archive: OtherArchive): Promise<boolean> {
    const found = await ifMissing(stat(this.archivePath(archive.sha256)), null);
    return found?.size === archive.size;
  }

  /** The compressed index of an archive that is here, whole or in part; not verified. */
  async readIndex(archive: ArchiveReference): Promise<Buffer> {
    return readArchiveIndex(this.asMirror(), archive);
  }

  /**
   * What the index of a system's archive says, or null if the archive is gone or damaged.
   * Signatures of store paths are not checked.
   */
  async readContents(system: ReleasedSystem): Promise<ArchiveContents | null> {
    return readContents(this.asMirror(), system);
  }

  /** What is written so far, read the way hosts read it. */
  asMirror(): DirectoryMirror {
    return new DirectoryMirror(pathToFileURL(this.directory).href, {
      manifestBytes: MAX_MANIFEST_BYTES,
    });
  }

  /** Where the part of an archive lies that is here in part. */
  thinPath(sha256: string): string {
    return join(this.directory, "archives", `${sha256}.thin`);
  }

  /** Which bytes of the archive are here: null for all, undefined if it is not here. */
  async heldParts(archive: OtherArchive): Promise<readonly ByteRange[] | null | undefined> {
    if (await this.hasArchive(archive)) return null;
    try {
      const ranges = await this.asMirror().heldParts(archive.sha256);
      return ranges?.every(({ to }) => to <= archive.size) ? ranges : undefined;
    } catch (thrown) {
      const { code } = toPullError(thrown);
      // A damaged archive is written again, like a missing one.
      if (code.startsWith("MIRROR_") || code.startsWith("ARCHIVE_")) return undefined;
      throw thrown;
    }
  }

  /** What this stick was filled with, if that is less than its manifests name. */
  async stickContents(): Promise<StickContents> {
    return readStickContents(this.directory);
  }

  /** Replaces the list of contents, or removes it if it would say nothing. */
  async writeStickContents(list: StickContents): Promise<void> {
    const path = join(this.directory, STICK_CONTENTS_FILE);
    if (Object.keys(list.releases).length > 0) {
      await writeDurably(path, `${JSON.stringify(list, null, 2)}\n`, 0o644);
    } else {
      await removeDurably(path);
    }
  }

  /** Whether the archive that is here has its hash. */
  async isArchiveWhole(archive: OtherArchive): Promise<boolean> {
    const hash = new Sha256();
    const path = this.archivePath(archive.sha256);
    await hash.addAll(createReadStream(path, { highWaterMark: 1024 * 1024 }));
    return hash.hex() === archive.sha256;
  }

  /** Moves a finished, synced archive to its place. */
  async placeArchive(packed: string, sha256: string): Promise<void> {
    await rename(packed, this.archivePath(sha256));
    await syncDirectory(join(this.directory, "archives"));
  }

  /** Puts the release into force: hosts see it as soon as the file is renamed. */
  async placeManifest(channel: string, envelope: string | Uint8Array): Promise<void> {
    await mkdir(join(this.directory, "channels", channel), { recursive: true });
    await writeDurably(this.manifestPath(channel), envelope, 0o644);
  }
}

import { pathToFileURL } from "node:url";
import type { FileHandle } from "node:fs/promises";
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
import type { StickContents } from "../../core/formats/stick-contents.ts";
import { DirectoryMirror } from "../../effects/mirror/directory-mirror.ts";
import { readStickContents } from "../../effects/report/stick-contents-file.ts";
import { ifMissing } from "../../effects/files/missing-file.ts";
import { RootDirectory } from "../../effects/files/root-directory.ts";
import { lockFile, type ProcessLock } from "../../effects/process/process-lock.ts";
import { readArchiveIndex, readContents } from "./read-contents.ts";
import { MAX_MANIFEST_BYTES, RetainedReleases } from "./retained-releases.ts";

/** The publisher's own part of a mirror, which no host reads. */
export const PUBLISHER = ".publish";

/** The lock between those who read and write a mirror's directory. */
export const LOCK = `${PUBLISHER}/lock`;

/**
 * A mirror directory that is looked at, such as for `--dry-run`: nothing in it is opened for
 * writing, made or changed. A mirror that is not there is an empty one. The directory may come from
 * somebody else, so everything in it is reached through `root`.
 */
export class MirrorReader {
  readonly root: RootDirectory;
  /** Releases that were published here and not pruned. */
  readonly retained: RetainedReleases;
  readonly #lock: ProcessLock | null;

  protected constructor(root: RootDirectory, lock: ProcessLock | null) {
    this.root = root;
    this.retained = new RetainedReleases(root);
    this.#lock = lock;
  }

  /**
   * Looks at a mirror, and keeps others from writing to it meanwhile if somebody ever wrote there.
   * Throws PUBLISH_LOCKED if somebody writes now, and UNSAFE_FILE.
   */
  static async open(directory: string): Promise<MirrorReader> {
    const root = new RootDirectory(directory);
    const file = await ifMissing(root.openFile(LOCK), null);
    return new MirrorReader(root, file && (await takeLock(directory, file, "shared")));
  }

  /** Lets others write. */
  async close(): Promise<void> {
    await this.#lock?.release();
  }

  /** The mirror's directory. */
  get directory(): string {
    return this.root.path;
  }

  /** Where hosts read a channel's manifest, for messages. */
  manifestPath(channel: string): string {
    return this.root.nameOf(manifestFile(channel));
  }

  /** Where an archive lies that is here whole, for messages. */
  archivePath(sha256: string): string {
    return this.root.nameOf(archiveFile(sha256));
  }

  /** The channel's release in force, or null if there is none. Throws the trust errors. */
  async currentRelease(channel: string, trust: TrustPolicy): Promise<SignedManifest | null> {
    const bytes = await this.readEnvelope(channel);
    return bytes && readManifest(bytes, trust);
  }

  /** The bytes of the channel's manifest, not verified, or null if there is none. */
  async readEnvelope(channel: string): Promise<Buffer | null> {
    return this.root.readFileIfExists(manifestFile(channel), MAX_MANIFEST_BYTES);
  }

  /** The envelope of an older release that is supported here, not verified, or null. */
  async readSupported(channel: string, digest: string): Promise<Buffer | null> {
    return this.root.readFileIfExists(releaseFile(channel, digest), MAX_MANIFEST_BYTES);
  }

  /**
   * Whether the archive is in place with its size. Throws UNSAFE_FILE if something else than a
   * file has its name.
   */
  async hasArchive({ sha256, size }: OtherArchive): Promise<boolean> {
    const found = await this.root.statFile(archiveFile(sha256));
    return found?.size === size;
  }

  /** Opens an archive that is here whole. The caller closes it. Throws UNSAFE_FILE, ENOENT. */
  openArchive(sha256: string): Promise<FileHandle> {
    return this.root.openFile(archiveFile(sha256));
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

  /** What is here, read the way hosts read it. */
  asMirror(): DirectoryMirror {
    return new DirectoryMirror(pathToFileURL(this.directory).href, {
      manifestBytes: MAX_MANIFEST_BYTES,
    });
  }

  /** Which bytes of the archive are here: null for all, undefined if it is not here. */
  async heldParts(archive: OtherArchive): Promise<readonly ByteRange[] | null | undefined> {
    if (await this.hasArchive(archive)) return null;
    await this.root.statFile(thinFile(archive.sha256));
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
    return readStickContents(this.root);
  }

  /** Whether the archive that is here has its hash. */
  async isArchiveWhole({ sha256 }: OtherArchive): Promise<boolean> {
    const hash = new Sha256();
    const file = await this.openArchive(sha256);
    try {
      await hash.addAll(file.createReadStream({ highWaterMark: 1024 * 1024, autoClose: false }));
    } finally {
      await file.close();
    }
    return hash.hex() === sha256;
  }
}

/** Locks the file of a mirror's lock. Throws PUBLISH_LOCKED. */
export async function takeLock(
  directory: string,
  file: FileHandle,
  kind: "exclusive" | "shared",
): Promise<ProcessLock> {
  const lock = await lockFile(file, kind);
  if (lock) return lock;
  throw new PullError("PUBLISH_LOCKED", `another publish writes to ${directory}; wait for it`);
}

/** Name of the file that has an archive, below the mirror's directory. */
export function archiveFile(sha256: string): string {
  return `archives/${sha256}.tar`;
}

/** Name of the file that has a part of an archive. */
export function thinFile(sha256: string): string {
  return `archives/${sha256}.thin`;
}

/** Name of the directory with a channel's older releases that are still supported. */
export function releasesDirectory(channel: string): string {
  return `channels/${channel}/releases`;
}

/** Name of an older release that is still supported, below the mirror's directory. */
export function releaseFile(channel: string, digest: string): string {
  return `${releasesDirectory(channel)}/${digest}.json`;
}

/** Name of a channel's manifest, below the mirror's directory. */
export function manifestFile(channel: string): string {
  return `channels/${channel}/manifest.json`;
}

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readFile, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { OtherArchive } from "../../core/formats/archive-index.ts";
import type { ByteRange } from "../../core/formats/byte-ranges.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import {
  readManifest,
  type ArchiveReference,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import type { TrustPolicy } from "../../core/formats/envelope.ts";
import { STICK_CONTENTS_FILE, type StickContents } from "../../core/formats/stick-contents.ts";
import { TAR_BLOCK } from "../../core/formats/tar-layout.ts";
import { DirectoryMirror } from "../../effects/mirror/directory-mirror.ts";
import { readStickContents } from "../../effects/report/stick-contents-file.ts";
import { isNotFound, syncDirectory, writeDurably } from "../../effects/files/durable-file.ts";
import { tryLock, type ProcessLock } from "../../effects/process/process-lock.ts";
import { ReleaseShelf } from "../channel/release-shelf.ts";

/** Begins the name of a publish's working directory. */
const WORK = "work-";

/** The publisher's own mirror: as long as an envelope may be. */
const MAX_MANIFEST_BYTES = 256 * 1024 * 1024;

/**
 * A mirror directory that a publish writes. Archives are put in place by rename under
 * their hash; the manifest is replaced last; everything unfinished lies in `.publish`,
 * which no host reads and the next publish removes.
 */
export class MirrorWriter {
  readonly directory: string;
  readonly work: string;
  /** Releases that were published here and not pruned. */
  readonly shelf: ReleaseShelf;
  readonly #lock: ProcessLock;

  private constructor(directory: string, work: string, lock: ProcessLock) {
    this.directory = directory;
    this.work = work;
    this.shelf = new ReleaseShelf(join(directory, ".publish"));
    this.#lock = lock;
  }

  /** Takes the mirror for writing. Throws PUBLISH_LOCKED where another publish has it. */
  static async open(directory: string): Promise<MirrorWriter> {
    await mkdir(join(directory, ".publish"), { recursive: true });
    await mkdir(join(directory, "archives"), { recursive: true });
    const lock = await tryLock(join(directory, ".publish", "lock"));
    if (!lock) {
      throw new PullError("PUBLISH_LOCKED", `another publish writes to ${directory}; wait for it`);
    }
    // A publish that was killed may have left a `nix copy` behind that still writes: a new
    // name keeps it out of this one's way.
    const parent = join(directory, ".publish");
    for (const name of await readdir(parent)) {
      if (name.startsWith(WORK)) await rm(join(parent, name), { recursive: true, force: true });
    }
    return new MirrorWriter(directory, await mkdtemp(join(parent, WORK)), lock);
  }

  async close(): Promise<void> {
    await rm(this.work, { recursive: true, force: true });
    await this.#lock.release();
  }

  archivePath(sha256: string): string {
    return join(this.directory, "archives", `${sha256}.tar`);
  }

  manifestPath(channel: string): string {
    return join(this.directory, "channels", channel, "manifest.json");
  }

  /** The channel's release now, or null where there is none. Throws the trust errors. */
  async currentRelease(channel: string, trust: TrustPolicy): Promise<SignedManifest | null> {
    const bytes = await this.readEnvelope(channel);
    return bytes && readManifest(bytes, trust);
  }

  /** The channel's manifest file, or null where there is none. */
  async readEnvelope(channel: string): Promise<Buffer | null> {
    try {
      return await readFile(this.manifestPath(channel));
    } catch (error) {
      if (isNotFound(error)) return null;
      throw error;
    }
  }

  /** Whether the archive is in place with its size. */
  async hasArchive(archive: OtherArchive): Promise<boolean> {
    try {
      return (await stat(this.archivePath(archive.sha256))).size === archive.size;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  /** The compressed index of an archive in place, or of the part that is, not verified. */
  async readIndex({ sha256, index }: ArchiveReference): Promise<Buffer> {
    const range = { from: TAR_BLOCK, to: TAR_BLOCK + index.size };
    const pieces: Uint8Array[] = [];
    for await (const piece of this.asMirror().readArchive(sha256, range)) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  /** What is written so far, to be read as hosts do. */
  asMirror(): DirectoryMirror {
    return new DirectoryMirror(pathToFileURL(this.directory).href, {
      manifestBytes: MAX_MANIFEST_BYTES,
    });
  }

  /** The part of an archive, where it is not whole. */
  thinPath(sha256: string): string {
    return join(this.directory, "archives", `${sha256}.thin`);
  }

  /** Which bytes of the archive are in place: null for all, nothing where it is not there. */
  async heldParts(archive: OtherArchive): Promise<readonly ByteRange[] | null | undefined> {
    if (await this.hasArchive(archive)) return null;
    try {
      const ranges = await this.asMirror().heldParts(archive.sha256);
      return ranges?.every(({ to }) => to <= archive.size) ? ranges : undefined;
    } catch (thrown) {
      const { code } = toPullError(thrown);
      // What is damaged is written anew, like what is missing.
      if (code.startsWith("MIRROR_") || code.startsWith("ARCHIVE_")) return undefined;
      throw thrown;
    }
  }

  /** What a stick was packed with, where that is less than its manifests name. */
  async stickContents(): Promise<StickContents> {
    return readStickContents(this.directory);
  }

  /** Replaces the list; one that says nothing is removed. */
  async writeStickContents(list: StickContents): Promise<void> {
    const path = join(this.directory, STICK_CONTENTS_FILE);
    if (Object.keys(list.releases).length > 0) {
      await writeDurably(path, `${JSON.stringify(list, null, 2)}\n`, 0o644);
    } else {
      await rm(path, { force: true });
      await syncDirectory(this.directory);
    }
  }

  /** Whether the archive in place has its hash. */
  async isArchiveWhole(archive: OtherArchive): Promise<boolean> {
    const hash = createHash("sha256");
    const path = this.archivePath(archive.sha256);
    for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
      hash.update(chunk as Buffer);
    }
    return hash.digest("hex") === archive.sha256;
  }

  /** Moves a finished, synced archive to its place. */
  async placeArchive(packed: string, sha256: string): Promise<void> {
    await rename(packed, this.archivePath(sha256));
    await syncDirectory(join(this.directory, "archives"));
  }

  /** Puts the release into force: from the rename on, hosts see it. */
  async placeManifest(channel: string, envelope: string | Uint8Array): Promise<void> {
    await mkdir(join(this.directory, "channels", channel), { recursive: true });
    await writeDurably(this.manifestPath(channel), envelope, 0o644);
  }
}

import { mkdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../core/errors.ts";
import { readManifest, type ArchiveReference, type SignedManifest } from "../core/manifest.ts";
import type { TrustPolicy } from "../core/envelope.ts";
import { isNotFound, syncDirectory, writeDurably } from "../effects/durable-file.ts";
import { tryLock, type ProcessLock } from "../effects/process-lock.ts";

/**
 * A mirror directory that a publish writes. Archives are put in place by rename under
 * their hash; the manifest is replaced last; everything unfinished lies in `.publish`,
 * which no host reads and the next publish removes.
 */
export class MirrorWriter {
  readonly directory: string;
  readonly work: string;
  readonly #lock: ProcessLock;

  private constructor(directory: string, lock: ProcessLock) {
    this.directory = directory;
    this.work = join(directory, ".publish", "work");
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
    const writer = new MirrorWriter(directory, lock);
    await rm(writer.work, { recursive: true, force: true });
    await mkdir(writer.work, { recursive: true });
    return writer;
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
    let bytes: Buffer;
    try {
      bytes = await readFile(this.manifestPath(channel));
    } catch (error) {
      if (isNotFound(error)) return null;
      throw error;
    }
    return readManifest(bytes, trust);
  }

  /** Whether the archive is in place with its size. */
  async hasArchive(archive: ArchiveReference): Promise<boolean> {
    try {
      return (await stat(this.archivePath(archive.sha256))).size === archive.size;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  /** Moves a finished, synced archive to its place. */
  async placeArchive(packed: string, sha256: string): Promise<void> {
    await rename(packed, this.archivePath(sha256));
    await syncDirectory(join(this.directory, "archives"));
  }

  /** Puts the release into force: from the rename on, hosts see it. */
  async placeManifest(channel: string, envelope: string): Promise<void> {
    await mkdir(join(this.directory, "channels", channel), { recursive: true });
    await writeDurably(this.manifestPath(channel), envelope, 0o644);
  }
}

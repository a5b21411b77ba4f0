import { constants, open, readlink, realpath, stat, type FileHandle } from "node:fs/promises";
import { join, sep } from "node:path";
import { fileURLToPath } from "node:url";
import type { ByteRange } from "../../core/formats/byte-ranges.ts";
import { PullError } from "../../core/errors.ts";
import type { ManifestRead, Mirror } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { isNotFound } from "../files/durable-file.ts";
import { readBytes } from "../files/file-bytes.ts";
import { ThinFile } from "./thin-file.ts";

/** A mirror in a directory: a USB stick, a network file system, a local copy. */
export class DirectoryMirror implements Mirror {
  readonly address: string;
  readonly ranges = true;
  readonly #directory: string;
  readonly #limits: Pick<Settings["limits"], "manifestBytes">;

  constructor(address: string, limits: Pick<Settings["limits"], "manifestBytes">) {
    this.address = address;
    this.#directory = fileURLToPath(address);
    this.#limits = limits;
  }

  async readManifest(channel: string): Promise<ManifestRead> {
    const path = join(this.#directory, "channels", channel, "manifest.json");
    const file = await this.#open(path);
    try {
      const limit = this.#limits.manifestBytes;
      const { size } = await file.stat();
      if (size > limit) {
        throw new PullError(
          "MIRROR_OVERSIZE",
          `${path}: expected at most ${limit} bytes, found ${size}`,
        );
      }
      // Bounded again while reading: the file may grow after the question.
      const bytes = Buffer.alloc(size);
      let read = 0;
      while (read < size) {
        const { bytesRead } = await file.read(bytes, read, size - read, read);
        if (bytesRead === 0) break;
        read += bytesRead;
      }
      return { kind: "read", bytes: bytes.subarray(0, read), validators: {} };
    } finally {
      await file.close();
    }
  }

  async *readArchive(
    sha256: string,
    range: ByteRange,
    signal?: AbortSignal,
  ): AsyncGenerator<Buffer> {
    const { file, thin } = await this.#openArchive(sha256);
    try {
      yield* thin ? thin.read(range, signal) : readBytes(file, range, signal);
    } finally {
      await file.close();
    }
  }

  async heldParts(sha256: string): Promise<readonly ByteRange[] | null> {
    const { file, thin } = await this.#openArchive(sha256);
    await file.close();
    return thin?.header.ranges ?? null;
  }

  /** The archive, or where it is not there, the part of it that is. */
  async #openArchive(sha256: string): Promise<{ file: FileHandle; thin: ThinFile | null }> {
    const whole = join(this.#directory, "archives", `${sha256}.tar`);
    const part = join(this.#directory, "archives", `${sha256}.thin`);
    try {
      return { file: await this.#open(whole), thin: null };
    } catch (error) {
      if (!(error instanceof PullError) || error.code !== "MIRROR_NOT_FOUND") throw error;
      const file = await this.#open(part).catch((other: unknown) => {
        // What is missing is the archive; nobody asked for a part of it.
        throw other instanceof PullError && other.code === "MIRROR_NOT_FOUND" ? error : other;
      });
      try {
        return { file, thin: await ThinFile.from(file, part) };
      } catch (damaged) {
        await file.close();
        throw damaged;
      }
    }
  }

  async #open(path: string): Promise<FileHandle> {
    let file: FileHandle;
    try {
      // Without blocking: a FIFO on a stick must not hold the agent up.
      file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (cause) {
      if (isNotFound(cause)) {
        await this.#expectThere(cause);
        throw new PullError("MIRROR_NOT_FOUND", `${path}: no such file`, { cause });
      }
      throw cause;
    }
    try {
      if (!(await file.stat()).isFile()) {
        throw new PullError("MIRROR_STATUS", `${path}: expected a plain file`);
      }
      await this.#expectInside(file, path);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** A mount point is empty while its stick is elsewhere. Throws MIRROR_ABSENT. */
  async #expectThere(cause: unknown): Promise<void> {
    if (await isMirrorThere(this.#directory)) return;
    throw new PullError("MIRROR_ABSENT", `${this.#directory}: not there now`, { cause });
  }

  /**
   * A link on a stick may lead to any file of this host, and what is wrong with that one
   * would be told in logs and reports. Asked of the open file, so that no swap comes between
   * (proc(5), /proc/PID/fd).
   */
  async #expectInside(file: FileHandle, path: string): Promise<void> {
    const [found, directory] = await Promise.all([
      readlink(`/proc/self/fd/${file.fd}`),
      realpath(this.#directory),
    ]);
    if (found.startsWith(directory.endsWith(sep) ? directory : directory + sep)) return;
    throw new PullError("MIRROR_STATUS", `${path}: a link leads out of the mirror's directory`);
  }
}

/** Whether a directory holds a mirror, whatever is on it. */
export async function isMirrorThere(directory: string): Promise<boolean> {
  try {
    await stat(join(directory, "channels"));
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

import { constants, open, readlink, realpath, type FileHandle } from "node:fs/promises";
import { join, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { PullError } from "../core/errors.ts";
import type { ManifestRead, Mirror } from "../core/ports.ts";
import type { Settings } from "../core/settings.ts";
import { isNotFound } from "./durable-file.ts";

const READ_SIZE = 256 * 1024;

/** A mirror in a directory: a USB stick, a network file system, a local copy. */
export class DirectoryMirror implements Mirror {
  readonly address: string;
  readonly ranges = true;
  readonly #directory: string;
  readonly #limits: Settings["limits"];

  constructor(address: string, limits: Settings["limits"]) {
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
    { from, to }: { from: number; to: number },
    signal?: AbortSignal,
  ): AsyncGenerator<Buffer> {
    const file = await this.#open(join(this.#directory, "archives", `${sha256}.tar`));
    try {
      let at = from;
      while (at < to) {
        if (signal?.aborted)
          throw new PullError("INTERRUPTED", "stopped while reading the archive");
        const buffer = Buffer.allocUnsafe(Math.min(READ_SIZE, to - at));
        const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
        if (bytesRead === 0) return;
        at += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  }

  async #open(path: string): Promise<FileHandle> {
    let file: FileHandle;
    try {
      // Without blocking: a FIFO on a stick must not hold the agent up.
      file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (cause) {
      if (isNotFound(cause)) {
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

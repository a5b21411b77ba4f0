import { readlink, realpath, type FileHandle } from "node:fs/promises";
import { join, sep } from "node:path";
import type { ByteRange } from "../../core/formats/byte-ranges.ts";
import { parseMirrorAddress } from "../../core/formats/mirror-address.ts";
import { PullError } from "../../core/errors.ts";
import type { ManifestRead, Mirror } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { readBytes } from "../files/file-bytes.ts";
import { exists, isNotFound } from "../files/missing-file.ts";
import { openRegularFile, readOpenFile } from "../files/regular-file.ts";
import { ThinFile } from "./thin-file.ts";

/** A mirror in a directory, given by its file:/// address: a stick, a network file system. */
export class DirectoryMirror implements Mirror {
  readonly address: string;
  readonly ranges = true;
  readonly #directory: string;
  readonly #limits: Pick<Settings["limits"], "manifestBytes">;

  constructor(address: string, limits: Pick<Settings["limits"], "manifestBytes">) {
    this.address = address;
    const parsed = parseMirrorAddress(address);
    if (parsed?.kind !== "directory") throw new Error(`expected a file:/// address: ${address}`);
    this.#directory = parsed.directory;
    this.#limits = limits;
  }

  async readManifest(channel: string): Promise<ManifestRead> {
    const path = join(this.#directory, "channels", channel, "manifest.json");
    const file = await this.#open(path);
    try {
      const maxBytes = this.#limits.manifestBytes;
      const bytes = await readOpenFile(file, { name: path, maxBytes, code: "MIRROR_OVERSIZE" });
      return { kind: "read", bytes, validators: {} };
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

  /** The whole archive, or, if there is none, the part of it that a stick carries. */
  async #openArchive(sha256: string): Promise<{ file: FileHandle; thin: ThinFile | null }> {
    const whole = join(this.#directory, "archives", `${sha256}.tar`);
    const part = join(this.#directory, "archives", `${sha256}.thin`);
    try {
      return { file: await this.#open(whole), thin: null };
    } catch (error) {
      if (!(error instanceof PullError) || error.code !== "MIRROR_NOT_FOUND") throw error;
      const file = await this.#open(part).catch((other: unknown) => {
        // The message names the archive: nobody asked for a part of it.
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
      file = await openRegularFile(path, { code: "MIRROR_STATUS", followLink: true });
    } catch (cause) {
      if (isNotFound(cause)) {
        await this.#expectThere(cause);
        throw new PullError("MIRROR_NOT_FOUND", `${path}: no such file`, { cause });
      }
      throw cause;
    }
    try {
      await this.#expectInside(file, path);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** A mount point is empty while its stick is not plugged in. Throws MIRROR_ABSENT. */
  async #expectThere(cause: unknown): Promise<void> {
    if (await isMirrorThere(this.#directory)) return;
    throw new PullError("MIRROR_ABSENT", `${this.#directory}: there is no mirror now`, { cause });
  }

  /**
   * A link on a stick may lead to any file of this host, and messages about its contents would get
   * into logs and reports. The check is made on the open file (proc(5), /proc/PID/fd), so that
   * nobody can replace the file in between. Throws MIRROR_STATUS.
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

/** Whether a directory holds a mirror, of whatever channels. Throws the system's errors. */
export function isMirrorThere(directory: string): Promise<boolean> {
  return exists(join(directory, "channels"));
}

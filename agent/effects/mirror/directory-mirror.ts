import type { FileHandle } from "node:fs/promises";
import type { ByteRange } from "../../core/formats/byte-ranges.ts";
import { parseMirrorAddress } from "../../core/formats/mirror-address.ts";
import { PullError } from "../../core/errors.ts";
import type { ManifestRead, Mirror } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { readBytes } from "../files/file-bytes.ts";
import { isNotFound } from "../files/missing-file.ts";
import { readOpenFile } from "../files/regular-file.ts";
import { RootDirectory } from "../files/root-directory.ts";
import { ThinFile } from "./thin-file.ts";

/**
 * A mirror in a directory, given by its file:/// address: a stick, a network file system. The
 * directory itself may be a link, but no link below it is followed: it could lead to any file of
 * this host, and messages about its contents would get into logs and reports.
 */
export class DirectoryMirror implements Mirror {
  readonly address: string;
  readonly ranges = true;
  readonly #root: RootDirectory;
  readonly #limits: Pick<Settings["limits"], "manifestBytes">;

  constructor(address: string, limits: Pick<Settings["limits"], "manifestBytes">) {
    this.address = address;
    const parsed = parseMirrorAddress(address);
    if (parsed?.kind !== "directory") throw new Error(`expected a file:/// address: ${address}`);
    this.#root = new RootDirectory(parsed.directory);
    this.#limits = limits;
  }

  async readManifest(channel: string): Promise<ManifestRead> {
    const bytes = await this.#readEnvelope(`channels/${channel}/manifest.json`);
    return { kind: "read", bytes, validators: {} };
  }

  async readRelease(channel: string, digest: string): Promise<Uint8Array> {
    return this.#readEnvelope(`channels/${channel}/releases/${digest}.json`);
  }

  async #readEnvelope(name: string): Promise<Buffer> {
    const file = await this.#open(name);
    try {
      const maxBytes = this.#limits.manifestBytes;
      const bounds = { maxBytes, code: "MIRROR_OVERSIZE" } as const;
      return await readOpenFile(file, { name: this.#root.nameOf(name), ...bounds });
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
    const whole = `archives/${sha256}.tar`;
    const part = `archives/${sha256}.thin`;
    try {
      return { file: await this.#open(whole), thin: null };
    } catch (error) {
      if (!(error instanceof PullError) || error.code !== "MIRROR_NOT_FOUND") throw error;
      const file = await this.#open(part).catch((other: unknown) => {
        // The message names the archive: nobody asked for a part of it.
        throw other instanceof PullError && other.code === "MIRROR_NOT_FOUND" ? error : other;
      });
      try {
        return { file, thin: await ThinFile.from(file, this.#root.nameOf(part)) };
      } catch (damaged) {
        await file.close();
        throw damaged;
      }
    }
  }

  /** Throws MIRROR_NOT_FOUND, MIRROR_ABSENT, and MIRROR_STATUS for a link or a device. */
  async #open(name: string): Promise<FileHandle> {
    try {
      return await this.#root.openFile(name);
    } catch (cause) {
      if (cause instanceof PullError && cause.code === "UNSAFE_FILE") {
        // Another mirror may do better, and this one too once somebody has looked at it.
        throw new PullError("MIRROR_STATUS", cause.message, { cause });
      }
      if (!isNotFound(cause)) throw cause;
      await this.#expectThere(cause);
      throw new PullError("MIRROR_NOT_FOUND", `${this.#root.nameOf(name)}: no such file`, {
        cause,
      });
    }
  }

  /** A mount point is empty while its stick is not plugged in. Throws MIRROR_ABSENT. */
  async #expectThere(cause: unknown): Promise<void> {
    if (await this.#root.stat("channels")) return;
    throw new PullError("MIRROR_ABSENT", `${this.#root.path}: there is no mirror now`, { cause });
  }
}

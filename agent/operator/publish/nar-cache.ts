import { readdirSync, renameSync, writeFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import { CACHE_INFO, CACHE_INFO_MEMBER } from "../../core/formats/archive-index.ts";
import {
  narFileName,
  narInfoFileName,
  parseNarInfo,
  renderNarInfo,
  type Compression,
  type ParsedNarInfo,
  type StorePathInfo,
} from "../../core/formats/narinfo.ts";
import { writeDurably } from "../../effects/files/durable-file.ts";
import { makeDirectory } from "../../effects/files/make-directory.ts";
import { isNotFound } from "../../effects/files/missing-file.ts";

/** A compressed NAR that goes into the cache. */
export interface NewNar {
  readonly info: StorePathInfo;
  readonly compression: Compression;
  /** Of the compressed file, hex. */
  readonly sha256: string;
  /** Of the compressed file, bytes. */
  readonly size: number;
}

/** Makes the directories of a binary cache, unless they are there. Throws the system's errors. */
export async function makeCache(directory: string): Promise<void> {
  await makeDirectory(join(directory, "nar"));
}

/** The NARs that a publish compressed: a binary cache, if later publishes have it too. */
export class NarCache {
  readonly directory: string;
  /** Names of the narinfos that it had when it was opened; null if nobody reads it again. */
  readonly #narInfos: ReadonlySet<string> | null;

  private constructor(directory: string, narInfos: ReadonlySet<string> | null) {
    this.directory = directory;
    this.#narInfos = narInfos;
  }

  /**
   * Opens a cache, which is made if it is not there. One that is not `kept` is gone after this
   * publish, and needs no narinfos. Throws the system's errors.
   */
  static async open(directory: string, { kept }: { readonly kept: boolean }): Promise<NarCache> {
    await makeCache(directory);
    if (!kept) return new NarCache(directory, null);
    await writeDurably(join(directory, CACHE_INFO_MEMBER), CACHE_INFO, 0o644);
    return new NarCache(directory, new Set(readdirSync(directory)));
  }

  /** What an earlier publish left of a path, if it is whole. Throws the system's errors. */
  async find(info: StorePathInfo, compression: Compression): Promise<ParsedNarInfo | null> {
    const file = narInfoFileName(info.storePath);
    if (!this.#narInfos?.has(file)) return null;
    try {
      const found = parseNarInfo(await readFile(join(this.directory, file), "utf8"), file);
      const isWhole =
        found.storePath === info.storePath &&
        found.narHash === info.narHash &&
        found.compression === compression &&
        (await stat(join(this.directory, found.url))).size === found.fileSize;
      return isWhole ? found : null;
    } catch (error) {
      if (isNotFound(error) || error instanceof PullError) return null;
      throw error;
    }
  }

  /** Moves a compressed NAR, which lies below `directory`, to its place. Throws the system's errors. */
  place(file: string, { info, compression, sha256, size }: NewNar): ParsedNarInfo {
    const url = narFileName(sha256, compression);
    renameSync(file, join(this.directory, url));
    const narInfo = { ...info, compression, fileSha256: sha256, fileSize: size };
    if (this.#narInfos) {
      // Without fsync: after a power cut a torn file has another size, and is compressed again.
      writeFileSync(file, renderNarInfo({ ...narInfo, signatures: [] }), {
        ...{ mode: 0o644, flag: "wx" },
      });
      renameSync(file, join(this.directory, narInfoFileName(info.storePath)));
    }
    return { ...narInfo, url };
  }
}

import { constants } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ArchiveReference } from "../../core/formats/manifest.ts";
import {
  bytesInRanges,
  joinRanges,
  splitRange,
  type ByteRange,
} from "../../core/formats/byte-ranges.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import type { Mirror } from "../../core/ports.ts";
import type { ArchiveNeed } from "../../core/transfer/stick-plan.ts";
import { TAR_BLOCK } from "../../core/formats/tar-layout.ts";
import { encodeThinHeader } from "../../core/formats/thin-archive.ts";
import { syncDirectory } from "../../effects/files/durable-file.ts";
import { readBytes } from "../../effects/files/file-bytes.ts";
import { ThinFile } from "../../effects/mirror/thin-file.ts";
import type { MirrorWriter } from "./mirror-writer.ts";
import { expectHash, verifyMembers } from "./verify-members.ts";

/** Attempts without any progress before a copy fails. */
const ATTEMPTS = 3;
const RETRY_MS = 1_000;

/** An archive, or a part of it, that is copied. */
export interface WantedArchive extends ArchiveNeed {
  /** The indexes in it that releases pin. A part has to have them. */
  readonly indexes: readonly ArchiveReference["index"][];
  /** What the destination has of it already. */
  readonly held: readonly ByteRange[];
}

/**
 * Copies archives from a mirror into a directory. Unfinished archives lie in `.publish/incoming`,
 * and the next copy continues them. An archive gets its name only when every byte that was asked
 * for is verified and on disk.
 */
export class ArchiveCopy {
  readonly #source: Mirror;
  readonly #writer: MirrorWriter;
  readonly #incoming: string;
  readonly #onBytes: (count: number) => void;
  readonly #signal: AbortSignal | undefined;

  constructor(
    source: Mirror,
    writer: MirrorWriter,
    options: { onBytes: (count: number) => void; signal?: AbortSignal | undefined },
  ) {
    this.#source = source;
    this.#writer = writer;
    this.#incoming = join(writer.directory, ".publish", "incoming");
    this.#onBytes = options.onBytes;
    this.#signal = options.signal;
  }

  /** Makes the working directory, and removes unfinished archives that are not wanted any more. */
  async prepare(archives: readonly WantedArchive[]): Promise<void> {
    await mkdir(this.#incoming, { recursive: true });
    const wanted = new Set(archives.map(fileOf));
    for (const name of await readdir(this.#incoming)) {
      if (!wanted.has(name)) await rm(join(this.#incoming, name), { recursive: true, force: true });
    }
  }

  /** Bytes of these archives that earlier copies left. */
  async resumable(archives: readonly WantedArchive[]): Promise<number> {
    let bytes = 0;
    for (const archive of archives) {
      const found = await stat(join(this.#incoming, fileOf(archive))).catch(() => null);
      bytes += found?.isFile() ? Math.min(found.size, archive.size) : 0;
    }
    return bytes;
  }

  /** Copies one archive to its place. Throws the MIRROR_ and ARCHIVE_ errors, INTERRUPTED. */
  async copy(archive: WantedArchive): Promise<void> {
    // A power cut may have damaged what an earlier copy left; then it is copied from the start.
    if ((await this.#copyOnce(archive)) === "damaged") await this.#copyOnce(archive);
  }

  /** Gives "damaged" if the bytes that an earlier copy left were not right. */
  async #copyOnce(archive: WantedArchive): Promise<"done" | "damaged"> {
    const path = join(this.#incoming, fileOf(archive));
    const layout = layoutOf(archive);
    const file = await openOwn(path);
    let from: number;
    try {
      from = await begin(file, layout);
      await this.#fill(file, archive, layout, from);
      try {
        await this.#verify(file, path, archive);
      } catch (thrown) {
        const { code } = toPullError(thrown);
        if (code === "INTERRUPTED") throw thrown;
        await rm(path, { force: true });
        if (from > layout.header.length && code.startsWith("ARCHIVE_")) return "damaged";
        throw thrown;
      }
      await file.sync();
    } finally {
      await file.close();
    }
    const { sha256 } = archive;
    if (archive.ranges === null) {
      await this.#writer.placeArchive(path, sha256);
      await rm(this.#writer.thinPath(sha256), { force: true });
    } else {
      await rename(path, this.#writer.thinPath(sha256));
      // An archive of this name has the wrong size, or the part would not be wanted.
      await rm(this.#writer.archivePath(sha256), { force: true });
    }
    await syncDirectory(join(this.#writer.directory, "archives"));
    return "done";
  }

  /** Writes the bytes from `from` on. A mirror that fails for a moment is asked again. */
  async #fill(
    file: FileHandle,
    archive: WantedArchive,
    { header, ranges, size }: Layout,
    from: number,
  ): Promise<void> {
    let at = from;
    for (let failures = 0; at < size;) {
      const before = at;
      try {
        for (const piece of remaining(ranges, at - header.length, archive.held)) {
          const source = piece.inside ? this.#writer.asMirror() : this.#source;
          let left = piece.to - piece.from;
          for await (const bytes of source.readArchive(archive.sha256, piece, this.#signal)) {
            await writeAll(file, bytes, at);
            at += bytes.length;
            left -= bytes.length;
            this.#onBytes(bytes.length);
          }
          if (left > 0) {
            throw new PullError(
              "ARCHIVE_TRUNCATED",
              `${this.#source.address}: archive ${archive.sha256} ends ${left} bytes before byte ${piece.to}`,
            );
          }
        }
      } catch (thrown) {
        const error = toPullError(thrown);
        failures = at > before ? 1 : failures + 1;
        if (!MAY_PASS.has(error.code) || failures >= ATTEMPTS) throw error;
        await sleep(
          RETRY_MS * 2 ** (failures - 1),
          undefined,
          this.#signal ? { signal: this.#signal } : {},
        );
      }
    }
  }

  async #verify(file: FileHandle, path: string, archive: WantedArchive): Promise<void> {
    if (archive.ranges === null) {
      const whole = readBytes(file, { from: 0, to: Infinity }, this.#signal);
      await expectHash(whole, archive.sha256, `archive ${archive.sha256}`);
      return;
    }
    const thin = await ThinFile.from(file, path);
    for (const index of archive.indexes) {
      const bytes = thin.read({ from: TAR_BLOCK, to: TAR_BLOCK + index.size }, this.#signal);
      await expectHash(bytes, index.sha256, `the index of archive ${archive.sha256}`);
    }
    const { sha256, members: nars, deltas } = archive;
    await verifyMembers({ sha256, nars, deltas }, (range) => thin.read(range, this.#signal));
  }
}

/** Errors that may pass by themselves. All others would come again. */
const MAY_PASS: ReadonlySet<string> = new Set([
  "MIRROR_UNREACHABLE",
  "MIRROR_STALLED",
  "MIRROR_SLOW",
]);

/** Name of the unfinished file. */
function fileOf({ sha256, ranges }: ArchiveNeed): string {
  return ranges === null ? `${sha256}.tar` : `${sha256}.thin`;
}

/** The bytes of the file that is written: a header, then ranges of the archive. */
interface Layout {
  readonly header: Buffer;
  readonly ranges: readonly ByteRange[];
  readonly size: number;
}

function layoutOf({ size, ranges, held }: WantedArchive): Layout {
  if (ranges === null) return { header: Buffer.alloc(0), ranges: [{ from: 0, to: size }], size };
  // Keep what the destination has already: other hosts need it.
  const all = joinRanges([...ranges, ...held]);
  const header = encodeThinHeader({ size, ranges: all });
  return { header, ranges: all, size: header.length + bytesInRanges(all) };
}

/** Opens the unfinished file. A link is not followed, and a FIFO does not block. */
async function openOwn(path: string): Promise<FileHandle> {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  return open(path, flags, 0o644);
}

/** Looks at what an earlier copy left; gives the byte to continue with. */
async function begin(file: FileHandle, { header, size }: Layout): Promise<number> {
  const found = (await file.stat()).size;
  const start = Buffer.alloc(header.length);
  await file.read(start, 0, header.length, 0);
  if (found >= header.length && found <= size && start.equals(header)) return found;
  await file.truncate(0);
  await writeAll(file, header, 0);
  return header.length;
}

/** The ranges without their first `done` bytes, cut where the destination's own bytes begin and end. */
function remaining(
  ranges: readonly ByteRange[],
  done: number,
  held: readonly ByteRange[],
): (ByteRange & { inside: boolean })[] {
  let skip = done;
  return ranges.flatMap((range) => {
    const skipped = Math.min(skip, range.to - range.from);
    skip -= skipped;
    return splitRange({ from: range.from + skipped, to: range.to }, held);
  });
}

async function writeAll(file: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  let written = 0;
  while (written < bytes.length) {
    const { bytesWritten } = await file.write(bytes, written, bytes.length - written, at + written);
    written += bytesWritten;
  }
}

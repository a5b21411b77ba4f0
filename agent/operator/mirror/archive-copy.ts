import type { FileHandle } from "node:fs/promises";
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
import { readBytes } from "../../effects/files/file-bytes.ts";
import { ThinFile } from "../../effects/mirror/thin-file.ts";
import { INCOMING, leftAlone, type MirrorWriter } from "./mirror-writer.ts";
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
  readonly #onBytes: (count: number) => void;
  readonly #signal: AbortSignal | undefined;

  constructor(
    source: Mirror,
    writer: MirrorWriter,
    options: { onBytes: (count: number) => void; signal?: AbortSignal | undefined },
  ) {
    this.#source = source;
    this.#writer = writer;
    this.#onBytes = options.onBytes;
    this.#signal = options.signal;
  }

  /**
   * Makes the working directory, and removes unfinished archives that are not wanted any more.
   * What nobody of us put there is named and left. Throws UNSAFE_FILE.
   */
  async prepare(archives: readonly WantedArchive[]): Promise<void> {
    const { root, onWarning } = this.#writer;
    await root.makeDirectory(INCOMING);
    const wanted = new Set(archives.map(fileOf));
    for (const entry of await root.list(INCOMING)) {
      const name = `${INCOMING}/${entry.name}`;
      if (wanted.has(name)) continue;
      const isOurs = UNFINISHED.test(entry.name) && (await root.removeRegularFile(name));
      if (!isOurs) onWarning(leftAlone(root.nameOf(name)));
    }
  }

  /** Bytes of these archives that earlier copies left. */
  async resumable(archives: readonly WantedArchive[]): Promise<number> {
    let bytes = 0;
    for (const archive of archives) {
      const found = await this.#writer.root.statFile(fileOf(archive));
      bytes += found ? Math.min(found.size, archive.size) : 0;
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
    const { root } = this.#writer;
    const name = fileOf(archive);
    const layout = layoutOf(archive);
    const file = await root.openOrCreate(name);
    let from: number;
    try {
      from = await begin(file, layout);
      await this.#fill(file, archive, layout, from);
      try {
        await this.#verify(file, root.nameOf(name), archive);
      } catch (thrown) {
        const { code } = toPullError(thrown);
        if (code === "INTERRUPTED") throw thrown;
        await root.removeFile(name);
        if (from > layout.header.length && code.startsWith("ARCHIVE_")) return "damaged";
        throw thrown;
      }
      await file.sync();
    } finally {
      await file.close();
    }
    // A whole archive beside a part has the wrong size, or the part would not be wanted.
    const kind = archive.ranges === null ? "whole" : "part";
    await this.#writer.placeCopied(name, archive.sha256, kind);
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

/** Names of unfinished files. */
const UNFINISHED = /^[0-9a-f]{64}\.(tar|thin)$/;

/** Name of the unfinished file, below the mirror's directory. */
function fileOf({ sha256, ranges }: ArchiveNeed): string {
  return `${INCOMING}/${sha256}.${ranges === null ? "tar" : "thin"}`;
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

import { createHash } from "node:crypto";
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
import { ThinFile } from "../../effects/mirror/thin-file.ts";
import type { MirrorWriter } from "./mirror-writer.ts";
import { verifyMembers } from "./verify-members.ts";

/** How often a copy that got nowhere is tried again before it is given up. */
const ATTEMPTS = 3;
const RETRY_MS = 1_000;

/** What is copied: an archive, or a part of it. */
export interface ArchiveOrder extends ArchiveNeed {
  /** The indexes in it that hosts' releases pin, and that a part has to have. */
  readonly indexes: readonly ArchiveReference["index"][];
  /** What the destination has of it already. */
  readonly held: readonly ByteRange[];
}

/**
 * Copies archives from a mirror into a directory. What is under way lies in
 * `.publish/incoming`, where the next copy goes on with it; an archive has its name only
 * once every byte that was asked for was verified and is on disk.
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

  /** Makes the working directory and removes what is under way of other archives. */
  async prepare(orders: readonly ArchiveOrder[]): Promise<void> {
    await mkdir(this.#incoming, { recursive: true });
    const wanted = new Set(orders.map(fileOf));
    for (const name of await readdir(this.#incoming)) {
      if (!wanted.has(name)) await rm(join(this.#incoming, name), { recursive: true, force: true });
    }
  }

  /** Bytes of these archives that earlier copies have brought already. */
  async resumable(orders: readonly ArchiveOrder[]): Promise<number> {
    let bytes = 0;
    for (const order of orders) {
      const found = await stat(join(this.#incoming, fileOf(order))).catch(() => null);
      bytes += found?.isFile() ? Math.min(found.size, order.size) : 0;
    }
    return bytes;
  }

  /** Brings one archive to its place. Throws the MIRROR_ and ARCHIVE_ errors, INTERRUPTED, …. */
  async bring(order: ArchiveOrder): Promise<void> {
    const resumed = await this.#bringOnce(order);
    // What was there from before may have been damaged by a power cut; nothing else was.
    if (resumed === "damaged") await this.#bringOnce(order);
  }

  /** Gives "damaged" where what an earlier copy left was not what it should be. */
  async #bringOnce(order: ArchiveOrder): Promise<"done" | "damaged"> {
    const path = join(this.#incoming, fileOf(order));
    const layout = layoutOf(order);
    const file = await openOwn(path);
    let from: number;
    try {
      from = await begin(file, layout);
      await this.#fill(file, order, layout, from);
      try {
        await this.#verify(file, path, order);
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
    const { sha256 } = order;
    if (order.ranges === null) {
      await this.#writer.placeArchive(path, sha256);
      await rm(this.#writer.thinPath(sha256), { force: true });
    } else {
      await rename(path, this.#writer.thinPath(sha256));
      // Of a wrong size, or it would have been taken for what was asked.
      await rm(this.#writer.archivePath(sha256), { force: true });
    }
    await syncDirectory(join(this.#writer.directory, "archives"));
    return "done";
  }

  /** Writes what is missing behind byte `from`; a mirror that falters is asked again. */
  async #fill(
    file: FileHandle,
    order: ArchiveOrder,
    { header, ranges, size }: Layout,
    from: number,
  ): Promise<void> {
    let at = from;
    for (let failures = 0; at < size;) {
      const before = at;
      try {
        for (const piece of remaining(ranges, at - header.length, order.held)) {
          const source = piece.inside ? this.#writer.asMirror() : this.#source;
          let left = piece.to - piece.from;
          for await (const bytes of source.readArchive(order.sha256, piece, this.#signal)) {
            await writeAll(file, bytes, at);
            at += bytes.length;
            left -= bytes.length;
            this.#onBytes(bytes.length);
          }
          if (left > 0) {
            throw new PullError(
              "ARCHIVE_TRUNCATED",
              `${this.#source.address}: archive ${order.sha256} ends ${left} bytes before byte ${piece.to}`,
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

  async #verify(file: FileHandle, path: string, order: ArchiveOrder): Promise<void> {
    if (order.ranges === null) {
      const hash = createHash("sha256");
      for await (const bytes of file.createReadStream({ start: 0, autoClose: false })) {
        if (this.#signal?.aborted) throw new PullError("INTERRUPTED", "stopped while verifying");
        hash.update(bytes as Buffer);
      }
      expectSha256(hash.digest("hex"), order.sha256, `archive ${order.sha256}`);
      return;
    }
    const thin = await ThinFile.from(file, path);
    for (const index of order.indexes) {
      const hash = createHash("sha256");
      const range = { from: TAR_BLOCK, to: TAR_BLOCK + index.size };
      for await (const bytes of thin.read(range, this.#signal)) hash.update(bytes);
      expectSha256(hash.digest("hex"), index.sha256, `the index of archive ${order.sha256}`);
    }
    await verifyMembers(order.sha256, order.members, order.deltas, (range) =>
      thin.read(range, this.#signal),
    );
  }
}

/** What passes by itself; what a mirror does wrong otherwise is wrong the next time too. */
const MAY_PASS: ReadonlySet<string> = new Set([
  "MIRROR_UNREACHABLE",
  "MIRROR_STALLED",
  "MIRROR_SLOW",
]);

/** Name of the file under way. */
function fileOf({ sha256, ranges }: ArchiveNeed): string {
  return ranges === null ? `${sha256}.tar` : `${sha256}.thin`;
}

/** The bytes of the file that is written: a header, then ranges of the archive. */
interface Layout {
  readonly header: Buffer;
  readonly ranges: readonly ByteRange[];
  readonly size: number;
}

function layoutOf({ size, ranges, held }: ArchiveOrder): Layout {
  if (ranges === null) return { header: Buffer.alloc(0), ranges: [{ from: 0, to: size }], size };
  // What other hosts need of it stays.
  const all = joinRanges([...ranges, ...held]);
  const header = encodeThinHeader({ size, ranges: all });
  return { header, ranges: all, size: header.length + bytesInRanges(all) };
}

/** Whatever had this name and is no plain file of ours goes; nothing is followed. */
async function openOwn(path: string): Promise<FileHandle> {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  return open(path, flags, 0o644);
}

/** Looks what an earlier copy has left; gives the byte to go on with. */
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

function expectSha256(found: string, expected: string, what: string): void {
  if (found === expected) return;
  throw new PullError("ARCHIVE_CORRUPT", `${what}: expected sha256 ${expected}, found ${found}`);
}

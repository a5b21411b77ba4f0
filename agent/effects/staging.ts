import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import {
  constants,
  lstat,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  rmdir,
  writeFile,
} from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import {
  CACHE_INFO,
  CACHE_INFO_MEMBER,
  INDEX_MEMBER,
  type ArchiveContents,
  type Member,
  type NarMember,
} from "../core/archive-index.ts";
import { PullError } from "../core/errors.ts";
import type { Run } from "../core/fetch-plan.ts";
import { narInfoFileName, renderNarInfo } from "../core/narinfo.ts";
import {
  TAR_BLOCK,
  TAR_TRAILER,
  describeTarHeader,
  paddedSize,
  tarHeader,
} from "../core/tar-layout.ts";
import { ByteReader } from "./byte-reader.ts";
import { isNotFound } from "./durable-file.ts";

const PART = ".part";
/** A link that somebody put into a shared directory is not followed (open(2)). */
const READ_NO_LINK = constants.O_RDONLY | constants.O_NOFOLLOW;
const APPEND_NO_LINK = constants.O_WRONLY | constants.O_APPEND | constants.O_NOFOLLOW;

/** Pieces from the network are gathered to this size before they are written. */
const WRITE_SIZE = 1024 * 1024;

/**
 * The binary cache that one archive becomes on its way into the store. Only files that
 * the signed index names are ever written, under names derived from their hashes.
 */
export class Staging {
  /** The directory of this archive, given to `nix copy --from file://`. */
  readonly directory: string;
  readonly #parent: string;
  /** Members whose hash was seen to be right by this object. */
  readonly #complete = new Set<string>();

  constructor(parent: string, archiveSha256: string) {
    this.#parent = parent;
    this.directory = join(parent, archiveSha256);
  }

  /** Makes the directory and removes those of other archives. */
  async prepare(): Promise<void> {
    await mkdir(this.#parent, { recursive: true, mode: 0o700 });
    await removeArchives(this.#parent, basename(this.directory));
    // Somebody else's link in our place would lead the writes elsewhere.
    if (!(await isRealDirectory(this.directory))) await rm(this.directory, { force: true });
    const nars = join(this.directory, "nar");
    if (!(await isRealDirectory(nars))) await rm(nars, { force: true });
    await mkdir(nars, { recursive: true, mode: 0o700 });
  }

  /** The compressed index as it was read before, or null. */
  async readIndex(): Promise<Buffer | null> {
    try {
      const file = await open(join(this.directory, INDEX_MEMBER), READ_NO_LINK);
      try {
        return await file.readFile();
      } finally {
        await file.close();
      }
    } catch (error) {
      if (isNotFound(error) || isLink(error)) return null;
      throw error;
    }
  }

  async writeIndex(compressed: Uint8Array): Promise<void> {
    await writeNew(join(this.directory, INDEX_MEMBER), compressed);
  }

  /**
   * How much of each wanted NAR is still missing: its name and the bytes held of it.
   * Whole files count only if they have their hash, since a power cut may have left
   * anything in them.
   */
  async missing(wanted: Iterable<NarMember>): Promise<Map<string, number>> {
    const missing = new Map<string, number>();
    for (const member of wanted) {
      if (this.#complete.has(member.name)) continue;
      const path = join(this.directory, member.name);
      const size = await fileSize(path);
      if (size === member.size && (await hashFile(path)).digest("hex") === member.body.sha256) {
        this.#complete.add(member.name);
        continue;
      }
      await rm(path, { force: true });
      const part = await fileSize(path + PART);
      if (part !== null && part >= member.size) await rm(path + PART, { force: true });
      missing.set(member.name, part !== null && part < member.size ? part : 0);
    }
    return missing;
  }

  /**
   * Reads one run's bytes, compares everything around the NARs with what the index
   * demands, and writes the wanted NARs. `onBytes` hears of every piece written.
   * Throws ARCHIVE_TRUNCATED, ARCHIVE_MEMBER, ARCHIVE_CORRUPT, NARINFO_MISMATCH.
   */
  async take(
    run: Run,
    contents: ArchiveContents,
    source: AsyncIterable<Uint8Array>,
    onBytes: (count: number) => void,
  ): Promise<void> {
    await readRun(run, contents, source, async (member, have, pieces) => {
      await this.#writeNar(member, have, pieces, onBytes);
    });
  }

  /** Completes the binary cache: what `nix copy` needs beside the NARs. */
  async writeNarInfos(contents: ArchiveContents): Promise<void> {
    await writeNew(join(this.directory, CACHE_INFO_MEMBER), CACHE_INFO);
    for (const info of contents.narInfos) {
      await writeNew(join(this.directory, narInfoFileName(info.storePath)), renderNarInfo(info));
    }
  }

  /** Whether anything is here that a later attempt can go on with. */
  async holdsNars(): Promise<boolean> {
    const names = await readdir(join(this.directory, "nar")).catch(() => []);
    return names.length > 0;
  }

  /** Removes everything that was staged, of whatever archive. */
  async remove(): Promise<void> {
    await removeStaging(this.#parent);
  }

  async #writeNar(
    member: NarMember,
    have: number,
    pieces: AsyncIterable<Uint8Array>,
    onBytes: (count: number) => void,
  ): Promise<void> {
    const path = join(this.directory, member.name);
    const part = path + PART;
    await mkdir(dirname(path), { recursive: true });
    const hash = have > 0 ? await hashFile(part) : createHash("sha256");
    if (have === 0) await rm(part, { force: true });
    const file = await open(part, have > 0 ? APPEND_NO_LINK : "wx", 0o600);
    try {
      let gathered: Uint8Array[] = [];
      let size = 0;
      const flush = async (): Promise<void> => {
        // Unlike write(2), this goes on until everything is written, or throws.
        await file.appendFile(Buffer.concat(gathered));
        gathered = [];
        size = 0;
      };
      try {
        for await (const piece of pieces) {
          hash.update(piece);
          gathered.push(piece);
          size += piece.length;
          onBytes(piece.length);
          if (size >= WRITE_SIZE) await flush();
        }
      } finally {
        // Also where the mirror broke off: what came is kept and resumed.
        await flush();
      }
    } finally {
      await file.close();
    }
    const found = hash.digest("hex");
    if (found !== member.body.sha256) {
      await rm(part, { force: true });
      throw new PullError(
        "ARCHIVE_CORRUPT",
        `${member.name} (${member.body.storePath}): expected sha256 ${member.body.sha256}, found ${found}`,
      );
    }
    await rename(part, path);
    this.#complete.add(member.name);
  }
}

/**
 * Removes whatever archives are staged in a directory, and the directory where it is
 * empty then. Files that are not the agent's stay: the setting may name a shared place.
 */
export async function removeStaging(directory: string): Promise<void> {
  await removeArchives(directory, null);
  await rmdir(directory).catch(() => undefined);
}

async function removeArchives(directory: string, except: string | null): Promise<void> {
  const names = await readdir(directory).catch((error: unknown) => {
    if (isNotFound(error)) return [];
    throw error;
  });
  for (const name of names) {
    if (name === except || !/^[0-9a-f]{64}$/.test(name)) continue;
    await rm(join(directory, name), { recursive: true, force: true });
  }
}

/**
 * Walks through a run's bytes, giving each wanted NAR's contents to `onNar`. Every
 * header, narinfo and padding byte must be exactly what the index implies.
 */
export async function readRun(
  run: Run,
  contents: ArchiveContents,
  source: AsyncIterable<Uint8Array>,
  onNar: (member: NarMember, have: number, pieces: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<void> {
  const reader = new ByteReader(source);
  try {
    for (const { member, wanted, have } of run.members) {
      if (have === 0) await expectHeader(reader, member);
      if (!wanted) {
        await reader.skip(member.size);
      } else if (member.body.kind === "nar") {
        await onNar(member as NarMember, have, reader.pieces(member.size - have));
      } else {
        await expectBytes(reader, member, member.body.bytes);
      }
      await expectZeros(reader, paddedSize(member.size) - member.size, member.name);
    }
    if (run.to === contents.size) await expectZeros(reader, TAR_TRAILER, "the last member");
  } finally {
    await reader.close();
  }
}

async function expectHeader(reader: ByteReader, member: Member): Promise<void> {
  const found = await reader.take(TAR_BLOCK);
  if (found.equals(tarHeader(member.name, member.size))) return;
  throw new PullError(
    "ARCHIVE_MEMBER",
    `expected the tar member file ${JSON.stringify(member.name)} of ${member.size} bytes at ` +
      `offset ${member.headerOffset}, found ${describeTarHeader(found)}`,
  );
}

async function expectBytes(reader: ByteReader, member: Member, expected: Buffer): Promise<void> {
  const found = await reader.take(member.size);
  if (found.equals(expected)) return;
  const lines = found.toString("utf8").split("\n");
  const differing = expected
    .toString("utf8")
    .split("\n")
    .findIndex((line, at) => line !== lines[at]);
  throw new PullError(
    "NARINFO_MISMATCH",
    `${member.name} differs from the signed index in line ${differing + 1}: expected ` +
      `${JSON.stringify(expected.toString("utf8").split("\n")[differing] ?? "")}, found ` +
      JSON.stringify((lines[differing] ?? "").slice(0, 200)),
  );
}

async function expectZeros(reader: ByteReader, length: number, after: string): Promise<void> {
  const found = await reader.take(length);
  if (found.every((byte) => byte === 0)) return;
  throw new PullError("ARCHIVE_MEMBER", `expected ${length} zero bytes after ${after}`);
}

/** Writes a file in the place of whatever has its name. */
async function writeNew(path: string, contents: string | Uint8Array): Promise<void> {
  await rm(path, { recursive: true, force: true });
  await writeFile(path, contents, { flag: "wx", mode: 0o600 });
}

async function isRealDirectory(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).isDirectory();
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

/** Whether a link was met where none may be (open(2), O_NOFOLLOW). */
function isLink(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | null)?.code === "ELOOP";
}

async function fileSize(path: string): Promise<number | null> {
  try {
    const found = await lstat(path);
    return found.isFile() ? found.size : null;
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}

async function hashFile(path: string): Promise<Hash> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: WRITE_SIZE })) {
    hash.update(chunk as Buffer);
  }
  return hash;
}

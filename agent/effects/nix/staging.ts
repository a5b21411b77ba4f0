import { createHash, type Hash } from "node:crypto";
import type { Stats } from "node:fs";
import {
  constants,
  lstat,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  rmdir,
  type FileHandle,
} from "node:fs/promises";
import { basename, join } from "node:path";
import {
  CACHE_INFO,
  CACHE_INFO_MEMBER,
  INDEX_MEMBER,
  type ArchiveContents,
  type Member,
  type NarMember,
} from "../../core/formats/archive-index.ts";
import { PullError } from "../../core/errors.ts";
import type { Run } from "../../core/transfer/fetch-plan.ts";
import { narInfoFileName, renderNarInfo, type NarInfo } from "../../core/formats/narinfo.ts";
import {
  TAR_BLOCK,
  TAR_TRAILER,
  describeTarHeader,
  paddedSize,
  tarHeader,
} from "../../core/formats/tar-layout.ts";
import { ByteReader } from "../files/byte-reader.ts";
import { isNotFound } from "../files/durable-file.ts";

const PART = ".part";
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

  /** Makes the directory and removes those of other archives. Throws STAGING_UNSAFE. */
  async prepare(): Promise<void> {
    await mkdir(this.#parent, { recursive: true, mode: 0o700 });
    await expectPrivate(this.#parent, "shared");
    await removeArchives(this.#parent, basename(this.directory));
    // Somebody else's link or directory in our place would lead the writes elsewhere.
    for (const directory of [this.directory, join(this.directory, "nar")]) {
      const found = await statOf(directory);
      if (found && !found.isDirectory()) await rm(directory, { force: true });
      await mkdir(directory, { recursive: true, mode: 0o700 });
      await expectPrivate(directory, "own");
    }
  }

  /** The compressed index as it was read before, or null. */
  async readIndex(): Promise<Buffer | null> {
    try {
      const file = await openPlain(join(this.directory, INDEX_MEMBER), constants.O_RDONLY);
      try {
        return await file.readFile();
      } finally {
        await file.close();
      }
    } catch (error) {
      if (isNotFound(error) || error instanceof PullError) return null;
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
    // One look at the directory: on a first pull there are many NARs and no files.
    const there = new Set(await this.#narNames());
    for (const member of wanted) {
      if (this.#complete.has(member.name)) continue;
      const file = basename(member.name);
      const path = join(this.directory, member.name);
      if (there.has(file)) {
        const size = await fileSize(path);
        if (size === member.size && (await hashFile(path)).digest("hex") === member.body.sha256) {
          this.#complete.add(member.name);
          continue;
        }
        await rm(path, { force: true, recursive: true });
      }
      const part = there.has(file + PART) ? await fileSize(path + PART) : null;
      if (there.has(file + PART) && (part === null || part >= member.size)) {
        await rm(path + PART, { force: true, recursive: true });
      }
      missing.set(member.name, part !== null && part < member.size ? part : 0);
    }
    return missing;
  }

  /** Whether a NAR is here with its hash, as far as this object has seen. */
  isComplete(name: string): boolean {
    return this.#complete.has(name);
  }

  /**
   * Reads one run's bytes, compares everything around the NARs with what the index
   * demands, and writes the wanted NARs. Throws ARCHIVE_TRUNCATED, ARCHIVE_MEMBER,
   * ARCHIVE_CORRUPT, NARINFO_MISMATCH.
   */
  async take(
    run: Run,
    contents: Pick<ArchiveContents, "sha256" | "size">,
    source: AsyncIterable<Uint8Array>,
    listener: StagingListener,
  ): Promise<void> {
    await readRun(run, contents, source, async (member, have, pieces) => {
      await listener.onBegin?.(member);
      await this.#writeNar(member, have, pieces, listener.onBytes);
      listener.onComplete?.(member);
    });
  }

  /** Makes a binary cache of the NARs here: what `nix copy` needs beside those of these paths. */
  async writeNarInfos(narInfos: readonly NarInfo[]): Promise<void> {
    await writeNew(join(this.directory, CACHE_INFO_MEMBER), CACHE_INFO);
    await inParallel(narInfos, (info) =>
      writeNew(join(this.directory, narInfoFileName(info.storePath)), renderNarInfo(info)),
    );
  }

  /** Removes the narinfos of these paths and these files, which the store has now. */
  async discard(narInfos: readonly NarInfo[], files: readonly string[]): Promise<void> {
    for (const name of files) this.#complete.delete(name);
    const names = [...files, ...narInfos.map(({ storePath }) => narInfoFileName(storePath))];
    await inParallel(names, (name) => rm(join(this.directory, name), { force: true }));
  }

  /** Whether anything is here that a later attempt can go on with. */
  async holdsNars(): Promise<boolean> {
    return (await this.#narNames()).length > 0;
  }

  async #narNames(): Promise<string[]> {
    return readdir(join(this.directory, "nar")).catch(() => []);
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
    const hash = have > 0 ? await hashFile(part) : createHash("sha256");
    const out: { file: FileHandle | null } = { file: null };
    let gathered: Uint8Array[] = [];
    let size = 0;
    const flush = async (): Promise<void> => {
      out.file ??=
        have > 0
          ? await openPlain(part, constants.O_WRONLY | constants.O_APPEND)
          : await createNew(part);
      // Unlike write(2), this goes on until everything is written, or throws.
      await out.file.appendFile(Buffer.concat(gathered));
      gathered = [];
      size = 0;
    };
    let whole = false;
    try {
      for await (const piece of pieces) {
        hash.update(piece);
        gathered.push(piece);
        size += piece.length;
        onBytes(piece.length);
        if (size >= WRITE_SIZE) await flush();
      }
      whole = true;
    } finally {
      // Also where the mirror broke off: what came is kept and resumed. A small NAR that
      // came whole is written in one go instead, below.
      try {
        if (size > 0 && (out.file !== null || have > 0 || !whole)) await flush();
      } finally {
        await out.file?.close();
      }
    }
    const found = hash.digest("hex");
    if (found !== member.body.sha256) {
      await rm(part, { force: true });
      throw new PullError(
        "ARCHIVE_CORRUPT",
        `${member.name} (${member.body.storePath}): expected sha256 ${member.body.sha256}, found ${found}`,
      );
    }
    if (size > 0) await writeNew(path, Buffer.concat(gathered));
    else await rename(part, path);
    this.#complete.add(member.name);
  }
}

/** Hears how far a run is. */
export interface StagingListener {
  /** Hears of every piece of a NAR. */
  readonly onBytes: (count: number) => void;
  /** Called before a NAR is written; the next piece is not read until it is done. */
  readonly onBegin?: (member: NarMember) => Promise<void>;
  /** A NAR is here, with its hash. */
  readonly onComplete?: (member: NarMember) => void;
}

/** Small files are written and removed this many at a time. */
const FILES_AT_ONCE = 16;

async function inParallel<T>(
  items: readonly T[],
  work: (item: T) => Promise<unknown>,
): Promise<void> {
  for (let from = 0; from < items.length; from += FILES_AT_ONCE) {
    await Promise.all(items.slice(from, from + FILES_AT_ONCE).map(work));
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
    // What another user put under such a name could change while it is being removed.
    const found = await statOf(join(directory, name));
    if (!found || found.uid !== process.geteuid?.()) continue;
    await rm(join(directory, name), { recursive: true, force: true });
  }
}

/**
 * Walks through a run's bytes, giving each wanted NAR's contents to `onNar`. Every
 * header, narinfo and padding byte must be exactly what the index implies.
 */
export async function readRun(
  run: Run,
  contents: Pick<ArchiveContents, "sha256" | "size">,
  source: AsyncIterable<Uint8Array>,
  onNar: (member: NarMember, have: number, pieces: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<void> {
  const reader = new ByteReader(source);
  try {
    let at = run.from;
    for (const { member, wanted, have } of run.members) {
      // In another archive, members lie between that this index does not know.
      if (member.headerOffset > at) await reader.skip(member.headerOffset - at);
      at = member.headerOffset + TAR_BLOCK + paddedSize(member.size);
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
    if (run.archive === contents.sha256 && run.to === contents.size)
      await expectZeros(reader, TAR_TRAILER, "the last member");
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

async function statOf(path: string): Promise<Stats | null> {
  try {
    return await lstat(path);
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}

/**
 * Whether only this user decides what lies in a directory. In a `shared` one, such as
 * a mounted file system's root, others may have things of their own if the sticky bit
 * keeps them from touching ours (inode(7)); our own directories are nobody else's.
 * Throws STAGING_UNSAFE.
 */
async function expectPrivate(directory: string, kind: "shared" | "own"): Promise<void> {
  const found = await lstat(directory);
  const user = process.geteuid?.() ?? 0;
  const writable = (found.mode & 0o022) !== 0;
  const sticky = kind === "shared" && (found.mode & 0o1000) !== 0;
  if (found.isDirectory() && found.uid === user && (!writable || sticky)) return;
  throw new PullError(
    "STAGING_UNSAFE",
    `${directory}: expected a directory of user ${user} that no others write to, found ` +
      (found.isSymbolicLink()
        ? "a symbolic link"
        : `mode ${(found.mode & 0o7777).toString(8)} of user ${found.uid}`),
  );
}

/** Creates a file in place of whatever had its name; never follows a link. */
async function createNew(path: string): Promise<FileHandle> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  try {
    return await open(path, flags, 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  await rm(path, { recursive: true, force: true });
  return open(path, flags, 0o600);
}

async function writeNew(path: string, contents: Uint8Array | string): Promise<void> {
  const file = await createNew(path);
  try {
    await file.writeFile(contents);
  } finally {
    await file.close();
  }
}

/** Opens what is a plain file with one name; a link could lead the bytes elsewhere. */
async function openPlain(path: string, flags: number): Promise<FileHandle> {
  const unsafe = (cause?: unknown): PullError =>
    new PullError("STAGING_UNSAFE", `${path}: expected a plain file with one name`, { cause });
  const file = await open(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    (error: unknown) => {
      throw (error as NodeJS.ErrnoException).code === "ELOOP" ? unsafe(error) : error;
    },
  );
  const found = await file.stat();
  if (found.isFile() && found.nlink === 1) return file;
  await file.close();
  throw unsafe();
}

/** Size of a plain file that is ours alone, or null; anything else is no part of a download. */
async function fileSize(path: string): Promise<number | null> {
  const found = await statOf(path);
  return found?.isFile() && found.nlink === 1 ? found.size : null;
}

async function hashFile(path: string): Promise<Hash> {
  const hash = createHash("sha256");
  const file = await openPlain(path, constants.O_RDONLY);
  try {
    for await (const chunk of file.createReadStream({
      highWaterMark: WRITE_SIZE,
      autoClose: false,
    })) {
      hash.update(chunk as Buffer);
    }
  } finally {
    await file.close();
  }
  return hash;
}

import { createHash, type Hash } from "node:crypto";
import {
  closeSync,
  constants,
  openSync,
  rmSync,
  unlinkSync,
  writeFileSync,
  type Stats,
} from "node:fs";
import { lstat, open, rename, rm, type FileHandle } from "node:fs/promises";
import { PullError } from "../../core/errors.ts";
import { hasErrorCode, ifMissing, isNotFound } from "../files/missing-file.ts";
import { ownActivity } from "../process/activity.ts";
import { openRegularFile } from "../files/regular-file.ts";

/** What the name of an unfinished NAR ends with. */
export const PART = ".part";

/** Pieces from the network are gathered to this size before they are written. */
const WRITE_SIZE = 1024 * 1024;

/** What lies at a path, links not followed, or null. */
export async function statOf(path: string): Promise<Stats | null> {
  return ifMissing(lstat(path), null);
}

const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Creates a file in place of whatever had its name; never follows a link. */
async function createNew(path: string): Promise<FileHandle> {
  try {
    return await open(path, NEW_FILE, 0o600);
  } catch (error) {
    if (!hasErrorCode(error, "EEXIST")) throw error;
  }
  await rm(path, { recursive: true, force: true });
  return open(path, NEW_FILE, 0o600);
}

/** A file up to this size is written synchronously: that takes less than to wait for others. */
const SMALL_BYTES = 64 * 1024;

/** As `writeNew`, at once. For small files: nothing else runs meanwhile. */
export function writeSmall(path: string, contents: Uint8Array | string): void {
  let file: number;
  try {
    file = openSync(path, NEW_FILE, 0o600);
  } catch (error) {
    if (!hasErrorCode(error, "EEXIST")) throw error;
    rmSync(path, { recursive: true, force: true });
    file = openSync(path, NEW_FILE, 0o600);
  }
  try {
    writeFileSync(file, contents);
  } finally {
    closeSync(file);
  }
}

/** Removes a file at once; nothing if it is not there. */
export function removeSmall(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

/** Writes a file in place of whatever had its name; never follows a link. */
export async function writeNew(path: string, contents: Uint8Array | string): Promise<void> {
  if (contents.length <= SMALL_BYTES) {
    writeSmall(path, contents);
    return;
  }
  const file = await createNew(path);
  try {
    await file.writeFile(contents);
  } finally {
    await file.close();
  }
}

/** Opens a regular file with one name. Throws STAGING_UNSAFE and the system's errors. */
function openPlain(path: string, flags: number): Promise<FileHandle> {
  return openRegularFile(path, { code: "STAGING_UNSAFE", flags, onlyName: true });
}

/** The contents of a plain file with one name, or null if there is none. */
export async function readPlain(path: string): Promise<Buffer | null> {
  try {
    const file = await openPlain(path, constants.O_RDONLY);
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

/** Size of a plain file with one name, or null: anything else is no part of a download. */
export async function plainSize(path: string): Promise<number | null> {
  const found = await statOf(path);
  return found?.isFile() && found.nlink === 1 ? found.size : null;
}

/** The sha256 of a plain file's contents, which more can be added to. Throws as `openPlain`. */
export async function hashPlain(path: string): Promise<Hash> {
  const hash = createHash("sha256");
  const file = await openPlain(path, constants.O_RDONLY);
  try {
    for await (const chunk of file.createReadStream({
      highWaterMark: WRITE_SIZE,
      autoClose: false,
    })) {
      hash.update(chunk as Buffer);
      ownActivity.sign();
    }
  } finally {
    await file.close();
  }
  return hash;
}

/** What a NAR's file must become. */
export interface NarTarget {
  readonly path: string;
  readonly sha256: string;
  /** Bytes of it that its unfinished file has already. */
  readonly have: number;
}

/**
 * Writes the rest of a NAR. What came before a break stays in the unfinished file, for the
 * next attempt; a NAR with another hash is removed. Gives null, or the hash that was found if
 * it is another one. Throws what `pieces` throws and the system's errors.
 */
export async function writeNarFile(
  { path, sha256, have }: NarTarget,
  pieces: AsyncIterable<Uint8Array>,
  onBytes: (count: number) => void,
): Promise<string | null> {
  const part = path + PART;
  const hash = have > 0 ? await hashPlain(part) : createHash("sha256");
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
    // If the mirror broke off, what came is kept and resumed. A small NAR that came whole is
    // written in one go instead, below.
    try {
      if (size > 0 && (out.file !== null || have > 0 || !whole)) await flush();
    } finally {
      await out.file?.close();
    }
  }
  const found = hash.digest("hex");
  if (found !== sha256) {
    await rm(part, { force: true });
    return found;
  }
  if (size > 0) await writeNew(path, Buffer.concat(gathered));
  else await rename(part, path);
  return null;
}

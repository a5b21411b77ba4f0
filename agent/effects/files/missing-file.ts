import { readFile, readlink, stat } from "node:fs/promises";

/** Whether a thrown value is the operating system's error of one of these codes (errno(3)). */
export function hasErrorCode(error: unknown, ...codes: readonly string[]): boolean {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  return code !== undefined && codes.includes(code);
}

/** Whether a thrown value says that a file, or a directory above it, does not exist. */
export function isNotFound(error: unknown): boolean {
  return hasErrorCode(error, "ENOENT", "ENOTDIR");
}

/** The result of a file operation, or `value` if there is no such file. Throws all other errors. */
export async function ifMissing<T, V>(operation: Promise<T>, value: V): Promise<T | V> {
  try {
    return await operation;
  } catch (error) {
    if (isNotFound(error)) return value;
    throw error;
  }
}

/** Whether there is something at a path, behind a link too. Throws the operating system's errors. */
export async function exists(path: string): Promise<boolean> {
  return (await ifMissing(stat(path), null)) !== null;
}

/** What a bad sector, a damaged file system or something else in a file's place answers (errno(3)). */
const UNREADABLE = [
  "EIO",
  "EISDIR",
  "ELOOP",
  "ENXIO",
  "EBADMSG",
  "EUCLEAN",
  "EREMOTEIO",
  "ENODATA",
];

/** Whether a thrown value says that a file is there and its contents cannot be had. */
export function isUnreadable(error: unknown): boolean {
  return hasErrorCode(error, ...UNREADABLE);
}

/** A file of ours as text, or null if there is none. Throws the operating system's errors. */
export async function readIfExists(path: string): Promise<string | null> {
  return ifMissing(readFile(path, "utf8"), null);
}

/**
 * What a symbolic link holds, or null if there is none or it is something else. Throws the
 * operating system's errors.
 */
export async function readLinkIfExists(path: string): Promise<string | null> {
  try {
    return await readlink(path);
  } catch (error) {
    if (isNotFound(error) || hasErrorCode(error, "EINVAL")) return null;
    throw error;
  }
}

import { randomBytes } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { ifMissing } from "./missing-file.ts";

/** The end of the temporary names that `writeDurably` makes. A killed process leaves such files. */
export const TEMPORARY = /\.tmp-[0-9a-f]{12}$/;

/**
 * Replaces a file so that, whenever the power fails, it holds the old contents or the
 * new: temporary name, fsync, rename, fsync of the directory (fsync(2), rename(2)).
 * `mode` is the new file's. Throws the operating system's errors.
 */
export async function writeDurably(
  path: string,
  contents: string | Uint8Array,
  mode = 0o600,
): Promise<void> {
  const temporary = `${path}.tmp-${randomBytes(6).toString("hex")}`;
  try {
    const file = await open(temporary, "wx", mode);
    try {
      await file.writeFile(contents);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(dirname(path));
}

/**
 * Renames what cannot be used and may be somebody's, so that a file can take its place: to
 * `NAME.damaged-` and six random bytes. Gives the new name. Throws the operating system's errors.
 */
export async function setAside(path: string): Promise<string> {
  const aside = `${path}.damaged-${randomBytes(6).toString("hex")}`;
  await rename(path, aside);
  await syncDirectory(dirname(path));
  return aside;
}

/**
 * Removes a file so that it stays removed when the power fails. Gives whether there was one.
 * Throws the operating system's errors.
 */
export async function removeDurably(path: string): Promise<boolean> {
  const removed = await ifMissing(
    rm(path).then(() => true),
    false,
  );
  if (removed) await syncDirectory(dirname(path));
  return removed;
}

/** Writes the names in a directory to the disk: what was created, renamed or removed in it. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

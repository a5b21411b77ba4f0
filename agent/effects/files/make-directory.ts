import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { hasErrorCode } from "./missing-file.ts";

/**
 * Makes a directory, and those above it that are missing, with `mode`; nothing if it is there, or
 * if a link to a directory is. Throws the operating system's errors as they are: Node's own
 * `mkdir(…, { recursive: true })` calls a full disk, a used-up quota and a read-only disk ENOENT.
 */
export async function makeDirectory(path: string, mode = 0o777): Promise<void> {
  try {
    await mkdir(path, { mode });
  } catch (error) {
    if (hasErrorCode(error, "ENOENT") && dirname(path) !== path) {
      await makeDirectory(dirname(path), mode);
      await makeDirectory(path, mode);
      return;
    }
    // A read-only disk says EROFS of what is there, too (mkdir(2)).
    const isThere = await stat(path).then(
      (found) => found.isDirectory(),
      () => false,
    );
    if (!isThere) throw error;
  }
}

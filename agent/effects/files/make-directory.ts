import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { ifMissing } from "./missing-file.ts";

/**
 * Makes a directory, and those above it that are missing, with `mode`; nothing if it is there, or
 * if a link to a directory is. Throws the operating system's errors as they are: Node's own
 * `mkdir(…, { recursive: true })` calls a full disk, a used-up quota and a read-only disk ENOENT,
 * and never ends where no directory can be made, as in /proc. So each is made once here.
 */
export async function makeDirectory(path: string, mode = 0o777): Promise<void> {
  const found = await ifMissing(stat(path), null);
  if (found?.isDirectory()) return;
  const above = dirname(path);
  if (!found && above !== path) await makeDirectory(above, mode);
  await mkdir(path, { mode }).catch(async (error: unknown) => {
    // Somebody else may have made it meanwhile.
    const now = await ifMissing(stat(path), null);
    if (!now?.isDirectory()) throw error;
  });
}

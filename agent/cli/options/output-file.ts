import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { PullError } from "../../core/errors.ts";

/**
 * Throws USAGE if the file that an option names could not be written, since its directory is not
 * there: better now than after all the work.
 */
export async function expectFileFor(option: string, path: string | undefined): Promise<void> {
  if (path === undefined) return;
  const directory = dirname(path);
  const isThere = await stat(directory).then(
    (found) => found.isDirectory(),
    () => false,
  );
  if (isThere) return;
  throw new PullError(
    "USAGE",
    `${option} ${path}: expected a directory that exists, found no ${directory}`,
  );
}

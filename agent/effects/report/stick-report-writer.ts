import { constants, mkdir, open, type FileHandle } from "node:fs/promises";
import { PullError, toPullError } from "../../core/errors.ts";
import { writeDurably } from "../files/durable-file.ts";
import { exists, hasErrorCode, isNotFound } from "../files/missing-file.ts";

/** Directory of a stick in which it carries reports home. */
const REPORTS = "reports";

/**
 * Writes a report onto a stick, which is a mirror in a directory, if it is plugged in and can be
 * written. The stick may be pulled out at any moment, and somebody else may have prepared it. So
 * everything happens below the directory that was opened first: nothing is written below an empty
 * mount point, and no link is followed. Gives whether the report was written. Throws the operating
 * system's errors, and MIRROR_STATUS if `reports` is not a directory.
 */
export async function writeOnStick(
  directory: string,
  file: string,
  contents: string,
): Promise<boolean> {
  const stick = await openDirectory(directory, { followLinks: true });
  if (!stick) return false;
  try {
    const here = `/proc/self/fd/${stick.fd}`;
    if (!(await exists(`${here}/channels`))) return false;
    await mkdir(`${here}/${REPORTS}`, { mode: 0o755 }).catch((error: unknown) => {
      if (!hasErrorCode(error, "EEXIST")) throw error;
    });
    const reports = await openDirectory(`${here}/${REPORTS}`, { followLinks: false });
    if (!reports) {
      throw new PullError("MIRROR_STATUS", `${directory}/${REPORTS}: expected a directory`);
    }
    try {
      await writeDurably(`/proc/self/fd/${reports.fd}/${file}`, contents, 0o644);
    } finally {
      await reports.close();
    }
    return true;
  } catch (error) {
    // A stick that is read-only takes no reports, which is no error.
    if (toPullError(error).code === "PERMISSION_DENIED") return false;
    throw error;
  } finally {
    await stick.close();
  }
}

/** An open directory, or null if there is none. A link is followed only if the settings name it. */
async function openDirectory(
  path: string,
  { followLinks }: { followLinks: boolean },
): Promise<FileHandle | null> {
  const flags =
    constants.O_RDONLY | constants.O_DIRECTORY | (followLinks ? 0 : constants.O_NOFOLLOW);
  try {
    return await open(path, flags);
  } catch (error) {
    if (isNotFound(error) || hasErrorCode(error, "ELOOP")) return null;
    throw error;
  }
}

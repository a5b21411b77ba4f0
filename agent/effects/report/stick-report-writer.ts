import { constants, mkdir, open, stat, type FileHandle } from "node:fs/promises";
import { PullError, toPullError } from "../../core/errors.ts";
import { isNotFound, writeDurably } from "../files/durable-file.ts";

/** Where a stick takes reports home. */
const REPORTS = "reports";

/**
 * Writes a report onto a mirror's directory, where it is there and can be written. The
 * stick may be pulled out at any moment, and somebody else may have made it: everything is
 * done below the directory that was opened, so that nothing lands under an empty mount
 * point, and no link is followed. Gives whether it was written. Throws the operating
 * system's errors, and MIRROR_STATUS where `reports` is not a directory.
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
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
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
    // A stick that may only be read is as good as one that takes no reports.
    if (toPullError(error).code === "PERMISSION_DENIED") return false;
    throw error;
  } finally {
    await stick.close();
  }
}

/** A directory, or null where it is not there; the configuration may name a link, a stick may not. */
async function openDirectory(
  path: string,
  { followLinks }: { followLinks: boolean },
): Promise<FileHandle | null> {
  const flags =
    constants.O_RDONLY | constants.O_DIRECTORY | (followLinks ? 0 : constants.O_NOFOLLOW);
  try {
    return await open(path, flags);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (isNotFound(error) || code === "ELOOP") return null;
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

import { toPullError } from "../../core/errors.ts";
import { RootDirectory } from "../files/root-directory.ts";

/** Directory of a stick in which it carries reports home. */
const REPORTS = "reports";

/**
 * Writes a report onto a stick, which is a mirror in a directory, if it is plugged in and can be
 * written. The stick may be pulled out at any moment, and somebody else may have prepared it. So
 * everything happens below the directory that was opened first: nothing is written below an empty
 * mount point, and no link is followed. Gives whether the report was written. Throws the operating
 * system's errors, and UNSAFE_FILE if something else lies where the report belongs.
 */
export async function writeOnStick(
  directory: string,
  file: string,
  contents: string,
): Promise<boolean> {
  try {
    return await RootDirectory.holding(directory, async (stick) => {
      if (!(await stick?.stat("channels"))) return false;
      await stick?.makeDirectory(REPORTS);
      await stick?.writeFile(`${REPORTS}/${file}`, contents);
      return true;
    });
  } catch (error) {
    // A stick that is read-only takes no reports, which is no error.
    if (toPullError(error).code === "PERMISSION_DENIED") return false;
    throw error;
  }
}

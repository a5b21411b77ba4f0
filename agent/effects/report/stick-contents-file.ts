import { join } from "node:path";
import {
  EMPTY_STICK_CONTENTS,
  MAX_STICK_CONTENTS_BYTES,
  STICK_CONTENTS_FILE,
  parseStickContents,
  type StickContents,
} from "../../core/formats/stick-contents.ts";
import { ifMissing } from "../files/missing-file.ts";
import { readRegularFile } from "../files/regular-file.ts";

/**
 * The list of contents of a mirror's directory; an empty one if there is no list. Throws
 * MIRROR_STATUS and the operating system's errors.
 */
export async function readStickContents(directory: string): Promise<StickContents> {
  const path = join(directory, STICK_CONTENTS_FILE);
  const bytes = await ifMissing(
    readRegularFile(path, {
      code: "MIRROR_STATUS",
      maxBytes: MAX_STICK_CONTENTS_BYTES,
      followLink: true,
    }),
    null,
  );
  return bytes === null ? EMPTY_STICK_CONTENTS : parseStickContents(bytes, path);
}

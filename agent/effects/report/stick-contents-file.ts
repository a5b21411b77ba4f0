import {
  EMPTY_STICK_CONTENTS,
  MAX_STICK_CONTENTS_BYTES,
  STICK_CONTENTS_FILE,
  parseStickContents,
  type StickContents,
} from "../../core/formats/stick-contents.ts";
import type { RootDirectory } from "../files/root-directory.ts";

/**
 * The list of contents of a mirror's directory; an empty one if there is no list. Throws
 * MIRROR_STATUS, UNSAFE_FILE and the operating system's errors.
 */
export async function readStickContents(mirror: RootDirectory): Promise<StickContents> {
  const bytes = await mirror.readFileIfExists(STICK_CONTENTS_FILE, MAX_STICK_CONTENTS_BYTES);
  if (bytes === null) return EMPTY_STICK_CONTENTS;
  return parseStickContents(bytes, mirror.nameOf(STICK_CONTENTS_FILE));
}

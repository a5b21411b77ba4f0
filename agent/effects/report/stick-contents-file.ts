import { constants, open } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import {
  EMPTY_STICK_CONTENTS,
  MAX_STICK_CONTENTS_BYTES,
  STICK_CONTENTS_FILE,
  parseStickContents,
  type StickContents,
} from "../../core/formats/stick-contents.ts";
import { isNotFound } from "../files/durable-file.ts";

/** The list of contents of a mirror's directory; an empty one where there is none. Throws MIRROR_STATUS. */
export async function readStickContents(directory: string): Promise<StickContents> {
  const path = join(directory, STICK_CONTENTS_FILE);
  let file;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (isNotFound(error)) return EMPTY_STICK_CONTENTS;
    throw error;
  }
  try {
    const found = await file.stat();
    if (!found.isFile() || found.size > MAX_STICK_CONTENTS_BYTES) {
      throw new PullError(
        "MIRROR_STATUS",
        `${path}: expected a file of at most ${MAX_STICK_CONTENTS_BYTES} bytes`,
      );
    }
    return parseStickContents(await file.readFile(), path);
  } finally {
    await file.close();
  }
}

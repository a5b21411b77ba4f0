import { constants, open } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../core/errors.ts";
import {
  EMPTY_PACKING_LIST,
  MAX_PACKING_LIST_BYTES,
  PACKING_LIST_FILE,
  parsePackingList,
  type PackingList,
} from "../core/packing-list.ts";
import { isNotFound } from "./durable-file.ts";

/** The packing list of a mirror's directory; an empty one where there is none. Throws MIRROR_STATUS. */
export async function readPackingList(directory: string): Promise<PackingList> {
  const path = join(directory, PACKING_LIST_FILE);
  let file;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (isNotFound(error)) return EMPTY_PACKING_LIST;
    throw error;
  }
  try {
    const found = await file.stat();
    if (!found.isFile() || found.size > MAX_PACKING_LIST_BYTES) {
      throw new PullError(
        "MIRROR_STATUS",
        `${path}: expected a file of at most ${MAX_PACKING_LIST_BYTES} bytes`,
      );
    }
    return parsePackingList(await file.readFile(), path);
  } finally {
    await file.close();
  }
}

import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { holdSchema, type Hold, type HoldRead } from "../../core/schedule/hold.ts";
import { readChecked, writeCheckedUnlocked } from "../files/checked-file.ts";
import { isNotFound, syncDirectory } from "../files/durable-file.ts";

/** Its name in the state directory. */
export const HOLD_FILE = "hold.json";

function fileIn(stateDirectory: string): string {
  return join(stateDirectory, HOLD_FILE);
}

/** Reads the host's hold. Throws only the operating system's errors. */
export async function readHold(stateDirectory: string): Promise<HoldRead> {
  const read = await readChecked(fileIn(stateDirectory), holdSchema);
  switch (read.kind) {
    case "read":
      return { kind: "held", hold: read.value };
    case "missing":
      return { kind: "none" };
    case "damaged":
      return read;
    default:
      return read satisfies never;
  }
}

/** Holds the host, in place of any hold before. */
export async function writeHold(stateDirectory: string, hold: Hold): Promise<void> {
  await writeCheckedUnlocked(fileIn(stateDirectory), hold);
}

/** Ends a hold, damaged or not; gives whether there was one. */
export async function removeHold(stateDirectory: string): Promise<boolean> {
  const file = fileIn(stateDirectory);
  try {
    await rm(file);
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
  await syncDirectory(dirname(file));
  return true;
}

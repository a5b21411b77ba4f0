import { join } from "node:path";
import { holdSchema, type Hold, type HoldRead } from "../../core/schedule/hold.ts";
import { readChecked, writeCheckedUnlocked } from "../files/checked-file.ts";
import { removeDurably } from "../files/durable-file.ts";

/** Name of the file in the state directory. */
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

/** Holds the host. Replaces an earlier hold. Throws the operating system's errors. */
export async function writeHold(stateDirectory: string, hold: Hold): Promise<void> {
  await writeCheckedUnlocked(fileIn(stateDirectory), hold);
}

/**
 * Ends a hold, also one whose file is damaged. Gives whether there was one. Throws the operating
 * system's errors.
 */
export async function removeHold(stateDirectory: string): Promise<boolean> {
  return removeDurably(fileIn(stateDirectory));
}

import { join } from "node:path";
import { confirmationSchema, type Confirmation } from "../../core/schedule/confirmation.ts";
import { readChecked, writeCheckedUnlocked } from "../files/checked-file.ts";

/** Name of the file in the state directory. */
export const CONFIRMATION_FILE = "confirmation.json";

function fileIn(stateDirectory: string): string {
  return join(stateDirectory, CONFIRMATION_FILE);
}

/**
 * The release that was confirmed last; null if none was, or if the file is damaged. Throws the
 * operating system's errors.
 */
export async function readConfirmation(stateDirectory: string): Promise<Confirmation | null> {
  const read = await readChecked(fileIn(stateDirectory), confirmationSchema);
  return read.kind === "read" ? read.value : null;
}

/** Confirms a release, in place of an earlier one. Throws the operating system's errors. */
export async function writeConfirmation(
  stateDirectory: string,
  confirmation: Confirmation,
): Promise<void> {
  await writeCheckedUnlocked(fileIn(stateDirectory), confirmation);
}

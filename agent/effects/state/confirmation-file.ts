import { join } from "node:path";
import { confirmationSchema, type Confirmation } from "../../core/schedule/confirmation.ts";
import { readChecked, writeCheckedUnlocked } from "../files/checked-file.ts";

/** Its name in the state directory. */
export const CONFIRMATION_FILE = "confirmation.json";

function fileIn(stateDirectory: string): string {
  return join(stateDirectory, CONFIRMATION_FILE);
}

/** The release that was confirmed last; null where none was, or the file is damaged. */
export async function readConfirmation(stateDirectory: string): Promise<Confirmation | null> {
  const read = await readChecked(fileIn(stateDirectory), confirmationSchema);
  return read.kind === "read" ? read.value : null;
}

/** Confirms a release, in place of any that was confirmed before. */
export async function writeConfirmation(
  stateDirectory: string,
  confirmation: Confirmation,
): Promise<void> {
  await writeCheckedUnlocked(fileIn(stateDirectory), confirmation);
}

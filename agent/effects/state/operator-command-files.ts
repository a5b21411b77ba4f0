import type { OperatorCommandFiles } from "../../core/ports.ts";
import { readConfirmation, writeConfirmation } from "./confirmation-file.ts";
import { readHold, removeHold, writeHold } from "./hold-file.ts";

/** What people decided about a host, as files of its state directory. */
export function operatorCommandFilesIn(stateDirectory: string): OperatorCommandFiles {
  return {
    readHold: () => readHold(stateDirectory),
    hold: (hold) => writeHold(stateDirectory, hold),
    unhold: () => removeHold(stateDirectory),
    readConfirmation: () => readConfirmation(stateDirectory),
    confirm: (confirmation) => writeConfirmation(stateDirectory, confirmation),
  };
}

import { readFile } from "node:fs/promises";
import { hashMachineId } from "../../core/machine-id.ts";

/** The hashed identity in a machine-id file; null where there is none that can be read. */
export async function readMachineId(path: string): Promise<string | null> {
  try {
    return hashMachineId(await readFile(path, "utf8"));
  } catch {
    // An absent identity fits no binding; a host without bindings does not need one.
    return null;
  }
}

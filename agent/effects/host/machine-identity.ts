import { hostname } from "node:os";
import { readFile } from "node:fs/promises";
import { hashMachineId } from "../../core/machine-id.ts";

/** The hashed identity in a machine-id file; null if there is none that can be read. */
export async function readMachineId(path: string): Promise<string | null> {
  try {
    return hashMachineId(await readFile(path, "utf8"));
  } catch {
    // A host without an identity matches no binding, and one without bindings needs no identity.
    return null;
  }
}

/** What the kernel has as this host's name now; empty before it has one. */
export function systemHostname(): string {
  return hostname();
}

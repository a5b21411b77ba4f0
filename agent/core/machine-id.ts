import { sha256Hex } from "./formats/sha256.ts";

/**
 * Keeps the identity apart from what other programs derive of it: machine-id(5) asks
 * that the raw identity never be sent anywhere, only a hash keyed by the application.
 */
const PREFIX = "nixos-pull machine 1\n";

const MACHINE_ID = /^[0-9a-f]{32}$/;

/**
 * What a release may bind a host to: sha256, in hex, of our prefix and the machine-id's
 * 32 digits. Null if `text` is no machine-id.
 */
export function hashMachineId(text: string): string | null {
  const id = text.trim();
  return MACHINE_ID.test(id) ? sha256Hex(PREFIX, id) : null;
}

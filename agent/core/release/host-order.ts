import { createHash } from "node:crypto";

/**
 * Where a host stands in the order of all hosts, in [0, 1): by a hash of its name, so that
 * every host knows its place without knowing of another one. Places are evenly spread, and
 * each salt gives another order.
 */
export function placeInOrder(salt: string, hostname: string): number {
  const hash = createHash("sha256").update(`nixos-pull rollout 1\n${salt}\n${hostname}`).digest();
  return hash.readUIntBE(0, 6) / 2 ** 48;
}

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { generateKey, parseSecretKey, type SecretKey } from "../core/signing-key.ts";
import { isNotFound, writeDurably } from "./durable-file.ts";

const FILE = "host-key.secret";

/**
 * The key with which this host signs its reports: made where there is none, kept in the
 * state directory for its owner alone. It signs nothing that any host would follow.
 * Throws KEY_INVALID and the operating system's errors.
 */
export async function hostKey(stateDirectory: string, hostname: string): Promise<SecretKey> {
  const path = join(stateDirectory, FILE);
  try {
    return parseSecretKey(await readFile(path, "utf8"));
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  const { secret } = generateKey(`host-${hostname}`);
  await writeDurably(path, secret, 0o600);
  return parseSecretKey(secret);
}

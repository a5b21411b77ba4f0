import { link, rm } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import { generateKey, parseSecretKey, type SecretKey } from "../../core/formats/signing-key.ts";
import { syncDirectory, writeDurably } from "../files/durable-file.ts";
import { hasErrorCode, readIfExists } from "../files/missing-file.ts";

const FILE = "host-key.secret";

/**
 * The key with which this host signs its reports. It is generated if there is none, is kept in
 * the state directory, readable by the agent's user alone, and is never replaced: operators know
 * its public half. No host follows what it signs. Throws KEY_INVALID and the operating system's
 * errors.
 */
export async function hostKey(stateDirectory: string, hostname: string): Promise<SecretKey> {
  const path = join(stateDirectory, FILE);
  const known = await readKey(path);
  if (known) return known;
  const made = `${path}.new-${randomBytes(6).toString("hex")}`;
  try {
    await writeDurably(made, generateKey(`host-${hostname}`).secret, 0o600);
    // Unlike a rename, a link does not replace the key of a process that was quicker (link(2)).
    await link(made, path).catch((error: unknown) => {
      if (!hasErrorCode(error, "EEXIST")) throw error;
    });
  } finally {
    await rm(made, { force: true });
  }
  await syncDirectory(stateDirectory);
  const key = await readKey(path);
  if (!key)
    throw new PullError(
      "KEY_INVALID",
      `${path}: expected the key that was just generated, found none`,
    );
  return key;
}

async function readKey(path: string): Promise<SecretKey | null> {
  const text = await readIfExists(path);
  if (text === null) return null;
  try {
    return parseSecretKey(text);
  } catch (cause) {
    throw new PullError(
      "KEY_INVALID",
      `${path}: ${(cause as Error).message}; if you remove the file, this host generates a new ` +
        "key, and you have to give its public half to those who read the reports",
      { cause },
    );
  }
}

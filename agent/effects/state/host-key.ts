import { link, readFile, rm } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import { generateKey, parseSecretKey, type SecretKey } from "../../core/formats/signing-key.ts";
import { isNotFound, syncDirectory, writeDurably } from "../files/durable-file.ts";

const FILE = "host-key.secret";

/**
 * The key with which this host signs its reports: made where there is none, kept in the
 * state directory for its owner alone, and never replaced, since others know its public
 * half. It signs nothing that any host would follow. Throws KEY_INVALID and the
 * operating system's errors.
 */
export async function hostKey(stateDirectory: string, hostname: string): Promise<SecretKey> {
  const path = join(stateDirectory, FILE);
  const known = await readKey(path);
  if (known) return known;
  const made = `${path}.new-${randomBytes(6).toString("hex")}`;
  try {
    await writeDurably(made, generateKey(`host-${hostname}`).secret, 0o600);
    // A link, unlike a rename, loses against a process that was quicker (link(2), EEXIST).
    await link(made, path).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    });
  } finally {
    await rm(made, { force: true });
  }
  await syncDirectory(stateDirectory);
  const key = await readKey(path);
  if (!key) throw new PullError("KEY_INVALID", `${path}: expected the key just made, found none`);
  return key;
}

async function readKey(path: string): Promise<SecretKey | null> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
  try {
    return parseSecretKey(text);
  } catch (cause) {
    throw new PullError(
      "KEY_INVALID",
      `${path}: ${(cause as Error).message}; without it this host makes a new key, ` +
        "which whoever reads its reports has to be told",
      { cause },
    );
  }
}

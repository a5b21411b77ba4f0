import { readFile, stat } from "node:fs/promises";
import { PullError } from "../../core/errors.ts";
import { parsePublicKey, parseSecretKey, type SecretKey } from "../../core/formats/signing-key.ts";
import { isNotFound } from "../../effects/files/durable-file.ts";
import {
  commandSigner,
  keySigner,
  parseSignerCommand,
  type ReleaseSigner,
} from "../../operator/channel/release-signer.ts";
import { note } from "../display/output.ts";

/** Options of every command that signs a release. */
export interface SignerOptions {
  readonly key: readonly string[];
  readonly signer?: string;
  readonly signerKey?: string;
}

/** Who signs: the key files, then the external program. Throws USAGE, KEY_INVALID. */
export async function signersOf(
  { key, signer, signerKey }: SignerOptions,
  signal: AbortSignal,
): Promise<ReleaseSigner[]> {
  if ((signer === undefined) !== (signerKey === undefined)) {
    throw new PullError("USAGE", "expected --signer and --signer-key together");
  }
  const signers = (await Promise.all(key.map(readSecretKey))).map(keySigner);
  if (signer !== undefined && signerKey !== undefined) {
    signers.push(commandSigner(parseSignerCommand(signer), parsePublicKey(signerKey), signal));
  }
  return signers;
}

/** Reads a secret key file; warns where others can read it too. Throws KEY_INVALID. */
export async function readSecretKey(path: string): Promise<SecretKey> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (!isNotFound(cause)) throw cause;
    throw new PullError("KEY_INVALID", `expected a secret key file at ${path}`, { cause });
  }
  if (((await stat(path)).mode & 0o077) !== 0) {
    note(`nixos-pull: ${path} can be read by others; chmod 600 it`);
  }
  try {
    return parseSecretKey(text);
  } catch (error) {
    throw new PullError("KEY_INVALID", `${path}: ${(error as Error).message}`, { cause: error });
  }
}

import { readFile, realpath, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { Option } from "@commander-js/extra-typings";
import { PullError, toPullError } from "../../core/errors.ts";
import { parseSecretKey, type SecretKey } from "../../core/formats/signing-key.ts";
import { ifMissing, isNotFound } from "../../effects/files/missing-file.ts";
import { expectProgram } from "../../effects/process/find-program.ts";
import {
  commandSigner,
  keySigner,
  parseSignerCommand,
  type ReleaseSigner,
} from "../../operator/channel/release-signer.ts";
import { note } from "../display/output.ts";
import { publicKeyOf } from "./public-keys.ts";

/** `--signer`: an external program that signs. */
export function signerOption() {
  return new Option(
    "--signer <program>",
    "a program that reads what is to be signed and prints the signature in base64; a JSON array gives it arguments",
  );
}

/** `--signer-key`: the public key of that program's signatures. */
export function signerKeyOption() {
  return new Option("--signer-key <key>", "the public key of that signer, NAME:BASE64");
}

/** `--memory`: where it is remembered what was signed. */
export function memoryOption() {
  return new Option(
    "--memory <file>",
    "remembers what was signed, so that a mirror that was set back is noticed (default: beside each key)",
  );
}

/**
 * The files that remember what was signed: `--memory`, or `fleet.memory` beside each
 * `fleet.secret`, so that no order of keys and no new key forgets. None if there is neither. A link
 * to a key or memory stands for the file.
 */
export async function memoryPathsOf({
  memory,
  keys,
}: {
  readonly memory?: string | undefined;
  readonly keys: readonly string[];
}): Promise<string[]> {
  const realPath = (path: string): Promise<string> => ifMissing(realpath(path), resolve(path));
  if (memory !== undefined) return [await realPath(memory)];
  const paths = await Promise.all(
    keys.map(async (key) => `${(await realPath(key)).replace(/\.secret$/, "")}.memory`),
  );
  return [...new Set(paths)];
}

/** Options of every command that signs a release. */
export interface SignerOptions {
  readonly key: readonly string[];
  readonly signer?: string;
  readonly signerKey?: string;
}

/** Who signs: the key files, then the external program. Throws USAGE, KEY_INVALID, TOOL_MISSING. */
export async function signersOf(
  { key, signer, signerKey }: SignerOptions,
  signal: AbortSignal,
): Promise<ReleaseSigner[]> {
  if ((signer === undefined) !== (signerKey === undefined)) {
    throw new PullError("USAGE", "expected --signer and --signer-key together");
  }
  const signers = (await Promise.all(key.map(readSecretKey))).map(keySigner);
  if (signer !== undefined && signerKey !== undefined) {
    const command = parseSignerCommand(signer);
    await expectProgram(command[0]);
    signers.push(commandSigner(command, publicKeyOf("--signer-key", signerKey), signal));
  }
  return signers;
}

/** Reads a secret key file; warns if others can read it too. Throws KEY_INVALID, PERMISSION_DENIED. */
export async function readSecretKey(path: string): Promise<SecretKey> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw unreadableKey(path, toPullError(cause));
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

function unreadableKey(path: string, cause: PullError): PullError {
  const expected = `${path}: expected a secret key file`;
  if (cause.code === "PERMISSION_DENIED") {
    return new PullError(cause.code, `${expected}, and may not read it`, { cause });
  }
  const found = isNotFound(cause.cause) ? "found none" : `found none (${cause.message})`;
  return new PullError("KEY_INVALID", `${expected}, ${found}`, { cause });
}

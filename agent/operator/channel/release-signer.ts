import { PullError } from "../../core/errors.ts";
import {
  signBytes,
  verifyBytes,
  type PublicKey,
  type SecretKey,
} from "../../core/formats/signing-key.ts";
import { describeFailure, runProcess } from "../../effects/process/subprocess.ts";

/** Signs releases: with a key file, or by a program that reaches a token or a KMS. */
export interface ReleaseSigner {
  readonly publicKey: PublicKey;
  /** The Ed25519 signature of `message`, 64 bytes. Throws SIGNER_FAILED. */
  sign(message: Uint8Array): Promise<Buffer>;
}

/** Signs with a key that lies in a file. */
export function keySigner(key: SecretKey): ReleaseSigner {
  return { publicKey: key.publicKey, sign: async (message) => signBytes(key, message) };
}

/** A person may have to touch a token or type a PIN. After this time nobody will. */
const SIGNER_TIMEOUT_MS = 5 * 60 * 1000;

/** A base64 signature has 88 characters. A longer answer is something else. */
const MAX_ANSWER_BYTES = 4 * 1024;

/**
 * Signs with a program. `argv` is run without a shell. It gets the bytes that are signed (DSSE's
 * pre-authentication encoding) on standard input, and prints the signature in base64. The
 * signature is verified before it is used.
 */
export function commandSigner(
  argv: readonly [string, ...string[]],
  publicKey: PublicKey,
  signal?: AbortSignal,
): ReleaseSigner {
  const [program, ...args] = argv;
  return {
    publicKey,
    async sign(message) {
      const result = await runProcess(program, args, {
        // The operator's own program: it may need a PIN, a profile, a socket.
        env: process.env as Record<string, string>,
        input: message,
        timeoutMs: SIGNER_TIMEOUT_MS,
        maxOutput: MAX_ANSWER_BYTES,
        signal,
      });
      if (result.exitCode !== 0) throw new PullError("SIGNER_FAILED", describeFailure(result));
      const signature = Buffer.from(result.stdout.trim(), "base64");
      if (!verifyBytes(publicKey, message, signature)) {
        throw new PullError(
          "SIGNER_FAILED",
          `${program}: expected the base64 signature of key ${publicKey.name}, found ` +
            `${signature.length} bytes that are not`,
        );
      }
      return signature;
    },
  };
}

/**
 * Reads a signer command: a JSON array of program and arguments, or the path of a
 * program that needs none. Throws USAGE.
 */
export function parseSignerCommand(text: string): [string, ...string[]] {
  if (!text.startsWith("[")) return [text];
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    json = null;
  }
  if (!Array.isArray(json) || !json.every((part) => typeof part === "string")) {
    throw new PullError(
      "USAGE",
      `--signer: expected a program, or a JSON array of program and arguments, found ${text}`,
    );
  }
  const [program, ...args] = json;
  if (program === undefined) throw new PullError("USAGE", "--signer: expected a program");
  return [program, ...args];
}

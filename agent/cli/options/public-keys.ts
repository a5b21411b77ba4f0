import { PullError } from "../../core/errors.ts";
import { parsePublicKey, type PublicKey } from "../../core/formats/signing-key.ts";

/** The public key that an option gives. Throws KEY_INVALID, naming the option. */
export function publicKeyOf(option: string, text: string): PublicKey {
  try {
    return parsePublicKey(text);
  } catch (error) {
    if (!(error instanceof PullError)) throw error;
    throw new PullError(error.code, `${option}: ${error.message}`, { cause: error });
  }
}

/** The public keys that an option gives. Throws KEY_INVALID, naming the option. */
export function publicKeysOf(option: string, texts: readonly string[]): PublicKey[] {
  return texts.map((text) => publicKeyOf(option, text));
}

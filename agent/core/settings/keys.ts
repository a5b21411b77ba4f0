import * as z from "zod";
import { PullError } from "../errors.ts";
import { parsePublicKey, type PublicKey } from "../formats/signing-key.ts";

/** A public key as text. A wrong one is not repeated in messages: it may be a secret key. */
export const publicKeySchema = z.string().transform((text, context): PublicKey => {
  try {
    return parsePublicKey(text);
  } catch (error) {
    if (!(error instanceof PullError)) throw error;
    context.addIssue({
      code: "custom",
      message: error.message,
      params: { secret: true },
    });
    return z.NEVER;
  }
});

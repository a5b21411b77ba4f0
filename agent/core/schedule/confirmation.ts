import * as z from "zod";
import { ACTIVATION_MODES, sha256Schema, type Release } from "../formats/manifest.ts";
import { storePathSchema } from "../formats/store-path.ts";

/** A person's word that one release may be activated here. */
export const confirmationSchema = z.strictObject({
  at: z.iso.datetime(),
  sequence: z.int().positive(),
  digest: sha256Schema,
  toplevel: storePathSchema,
  mode: z.enum(ACTIVATION_MODES),
});
export type Confirmation = Readonly<z.infer<typeof confirmationSchema>>;

/** What identifies a release to whoever confirms it. */
export type Confirmable = Pick<Release, "sequence" | "digest" | "toplevel" | "mode">;

/**
 * Whether the confirmation is of this release. One that asks for the same system in the same
 * way, published again with a new expiry or another rollout, needs no other.
 */
export function confirms(confirmation: Confirmation | null, release: Confirmable): boolean {
  return confirmation?.toplevel === release.toplevel && confirmation.mode === release.mode;
}

/** Characters of a digest that are enough to name it. */
const MIN_DIGEST = 8;

/** Whether a text that a person gave, a sequence number or a digest's beginning, names the release. */
export function names(text: string, { sequence, digest }: Confirmable): boolean {
  return text === String(sequence) || (text.length >= MIN_DIGEST && digest.startsWith(text));
}

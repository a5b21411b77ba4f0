import * as z from "zod";
import { ACTIVATION_MODES, sha256Schema, type Release } from "../formats/manifest.ts";
import { openEnum } from "../formats/compatibility.ts";
import { storePathSchema } from "../formats/store-path.ts";

/** A person allowed the service to activate one release on this host. */
export const confirmationSchema = z.strictObject({
  at: z.iso.datetime(),
  sequence: z.int().positive(),
  digest: sha256Schema,
  toplevel: storePathSchema,
  mode: openEnum(ACTIVATION_MODES),
});
export type Confirmation = Readonly<z.infer<typeof confirmationSchema>>;

/** What identifies a release to the person who confirms it. */
export type Confirmable = Pick<Release, "sequence" | "digest" | "toplevel" | "mode">;

/**
 * Whether the confirmation holds for this release. It does for every release of the same system
 * in the same mode: a new expiry or another rollout needs no new confirmation.
 */
export function confirms(confirmation: Confirmation | null, release: Confirmable): boolean {
  return confirmation?.toplevel === release.toplevel && confirmation.mode === release.mode;
}

/** So many characters of a digest identify a release. */
const MIN_DIGEST = 8;

/** Whether a person's text identifies the release: its sequence number, or how its digest begins. */
export function identifies(text: string, { sequence, digest }: Confirmable): boolean {
  return text === String(sequence) || (text.length >= MIN_DIGEST && digest.startsWith(text));
}

import * as z from "zod";
import { ERROR_CODES, type ErrorCode, type PullError } from "../../core/errors.ts";
import {
  ACTIVATION_MODES,
  channelSchema,
  hostnameSchema,
  positionOf,
  sha256Schema,
  specialisationSchema,
  type SignedManifest,
} from "../../core/formats/manifest.ts";
import { storePathSchema } from "../../core/formats/store-path.ts";
import { escapeJson } from "../../core/text/sanitize.ts";
import { reasonSchema } from "../../core/update/states.ts";
import { printLine } from "./output.ts";

/**
 * What `--json` prints. The same thing has the same name in every command: a host is
 * `hostname`, many of them are an array `hosts`; the keys that signed are `signedBy`; an archive
 * is an object with its `sha256`. Keys are names of the schema, never data. Times are UTC in
 * ISO 8601, durations are in milliseconds, sizes in bytes.
 */

/** Arrays and objects that are only read. */
type Shown<Value> = Value extends readonly (infer Element)[]
  ? readonly Shown<Element>[]
  : Value extends object
    ? { readonly [Key in keyof Value]: Shown<Value[Key]> }
    : Value;

/**
 * Prints a result for machines, one JSON document. The compiler holds `value` against the
 * schema that the command declares with its `--json`; tests hold what is printed against it.
 */
export function printJson<Schema extends z.ZodType>(
  _schema: Schema,
  value: Shown<z.input<Schema>>,
): void {
  printLine(encodeJson(value));
}

/** The document as text. */
export function encodeJson(value: unknown): string {
  return escapeJson(JSON.stringify(value, null, 2));
}

/** An error: its stable code, and the same for people. */
export const errorSchema = reasonSchema.extend({ code: z.enum(ERROR_CODES) });

/** What every command prints that ended before it had a result. */
export const errorDocumentSchema = z.strictObject({ error: errorSchema });

/** An error as `--json` has it. */
export function errorJson({ code, message }: PullError): { code: ErrorCode; message: string } {
  return { code, message };
}

export const timeSchema = z.iso.datetime().describe("UTC time, ISO 8601");
export const countSchema = z.int().nonnegative();
export const bytesSchema = countSchema.describe("bytes");

/** A system that one host gets. */
export const hostSystemSchema = z.strictObject({
  hostname: hostnameSchema,
  toplevel: storePathSchema,
  mode: z.enum(ACTIVATION_MODES),
});

/** The same with what of it runs. */
export const runSystemSchema = hostSystemSchema.extend({
  specialisation: specialisationSchema
    .nullable()
    .describe("the specialisation of it that the host is to run; null for the system itself"),
});

/** A release as a whole. */
export const releaseShape = {
  channel: channelSchema,
  epoch: countSchema.describe("0 if the numbering was never restarted"),
  sequence: z.int().positive(),
  digest: sha256Schema.describe("sha256 of the payload"),
  createdAt: timeSchema,
  expiresAt: timeSchema,
  signedBy: z.array(z.string()).describe("names of the keys that signed it"),
};

/** The release of a manifest. `signedBy` is said apart if nobody verified it. */
export function releaseJson({ manifest, digest, signedBy }: SignedManifest) {
  const { channel, createdAt, expiresAt } = manifest;
  const { epoch, sequence } = positionOf(manifest);
  return { channel, epoch, sequence, digest, createdAt, expiresAt, signedBy };
}

import { z } from "zod";
import { openEnvelope, sealEnvelope } from "./envelope.ts";
import { ERROR_CODES, PullError } from "./errors.ts";
import { driftSchema } from "./drift.ts";
import { MAX_HOLD_REASON } from "./hold.ts";
import { channelSchema, hostnameSchema, sha256Schema } from "./manifest.ts";
import { describeIssues } from "./schema-issues.ts";
import type { PublicKey, SecretKey } from "./signing-key.ts";
import { storePathSchema } from "./store-path.ts";
import { WAIT_REASONS } from "./waiting.ts";

/**
 * A host's statement about itself, in a DSSE envelope of its own payload type: a report
 * can never be taken for a release, nor the other way round.
 */
export const REPORT_PAYLOAD_TYPE = "application/vnd.nixos-pull.report+json";

export const reportSchema = z.strictObject({
  formatVersion: z.literal(1),
  hostname: hostnameSchema,
  /** Hashed machine-id; null where the host has none. */
  machineId: sha256Schema.nullable(),
  /** When the report was made, by the host's clock; an older one is a replay. */
  at: z.iso.datetime(),
  channel: channelSchema,
  /** The release that the host last became. */
  release: z
    .strictObject({
      sequence: z.int().positive(),
      digest: sha256Schema,
      toplevel: storePathSchema,
      rebootNeeded: z.boolean(),
    })
    .nullable(),
  /** The highest release that it ever accepted, whatever came of it. */
  accepted: z
    .strictObject({
      epoch: z.int().nonnegative(),
      sequence: z.int().positive(),
      digest: sha256Schema,
    })
    .nullable(),
  /** The agent's state, such as `Idle`. */
  state: z.string().max(50),
  /** Why the last poll or attempt came to nothing; null where nothing is wrong. */
  code: z.enum(ERROR_CODES).nullable(),
  message: z.string().max(2000).nullable(),
  profile: storePathSchema.nullable(),
  running: storePathSchema.nullable(),
  /** What was booted: its kernel runs. */
  booted: storePathSchema.nullable(),
  /** What the release found by the last poll waits for; absent where nothing waits. */
  waits: z
    .array(
      z.strictObject({
        reason: z.enum(WAIT_REASONS),
        message: z.string().max(2000),
        until: z.iso.datetime().nullable(),
      }),
    )
    .max(20)
    .optional(),
  /** Absent where nobody holds the host. */
  hold: z
    .strictObject({
      /** Null for a hold that cannot be read any more. */
      at: z.iso.datetime().nullable(),
      until: z.iso.datetime().nullable(),
      reason: z.string().max(MAX_HOLD_REASON).nullable(),
    })
    .optional(),
  /** How the host differs from its release by hand; absent where it does not. */
  drift: driftSchema.optional(),
  agentVersion: z.string().max(50),
});
export type Report = z.infer<typeof reportSchema>;

/** The report as an envelope signed with the host's key. */
export function sealReport(report: Report, key: SecretKey): string {
  return sealEnvelope(Buffer.from(JSON.stringify(report)), [key], REPORT_PAYLOAD_TYPE);
}

/**
 * A report by the host whose key is given. Throws ENVELOPE_INVALID, PAYLOAD_TYPE_WRONG,
 * SIGNATURE_THRESHOLD or REPORT_INVALID.
 */
export function openReport(bytes: Uint8Array, key: PublicKey): Report {
  const trust = { publicKeys: [key], threshold: 1 };
  const { payload } = openEnvelope(bytes, trust, REPORT_PAYLOAD_TYPE);
  let json: unknown;
  try {
    json = JSON.parse(payload.toString("utf8"));
  } catch (cause) {
    throw new PullError("REPORT_INVALID", "the signed report is not JSON", { cause });
  }
  const parsed = reportSchema.safeParse(json);
  if (!parsed.success) {
    throw new PullError("REPORT_INVALID", describeIssues(parsed.error, json));
  }
  return parsed.data;
}

import * as z from "zod";
import { openEnvelope, sealEnvelope } from "./envelope.ts";
import { ERROR_CODES, PullError } from "../errors.ts";
import { DRIFTS, driftSchema } from "../update/drift.ts";
import { MAX_HOLD_REASON } from "../schedule/hold.ts";
import { withUnknownKeys, openEnum } from "./compatibility.ts";
import { channelSchema, hostnameSchema, sha256Schema } from "./manifest.ts";
import { featuresSchema } from "./compatibility.ts";
import { platformSchema } from "./platform.ts";
import { describeIssues } from "../text/schema-issues.ts";
import type { PublicKey, SecretKey } from "./signing-key.ts";
import { storePathSchema } from "./store-path.ts";
import { WAIT_REASONS } from "../schedule/waiting.ts";

/**
 * A host's statement about itself, in a DSSE envelope of its own payload type: a report
 * can never be taken for a release, nor the other way round.
 */
export const REPORT_PAYLOAD_TYPE = "application/vnd.nixos-pull.report+json";

/** Longest report in bytes that is read; a host's own has 2 to 8 kB. */
export const MAX_REPORT_BYTES = 64 * 1024;

/** Last lines of a failed update that a report carries, and the longest of them. */
export const MAX_FAILURE_LINES = 20;
export const MAX_FAILURE_LINE = 300;
/** Longer texts are for the host's own log. */
export const MAX_REPORT_MESSAGE = 500;

const timeSchema = z.iso.datetime();
const textSchema = z.string().max(2000);

/**
 * Why the last update failed here, and what its switch said last; there until another
 * release is committed.
 */
const failureSchema = z.strictObject({
  at: timeSchema,
  sequence: z.int().positive().nullable(),
  toplevel: storePathSchema.nullable(),
  code: openEnum(ERROR_CODES).nullable(),
  message: textSchema.nullable(),
  lastLines: z.array(z.string().max(MAX_FAILURE_LINE)).max(MAX_FAILURE_LINES),
  /** What the way back did not restore, or why it failed; absent if it has nothing to say. */
  wayBack: textSchema.optional(),
  /** True if it was tried often enough: it waits for a person or another release. */
  gaveUp: z.boolean().optional(),
});

/** What only a reboot completes, and whether this host reboots by itself for it. */
const pendingRebootSchema = z.strictObject({
  /** The release that it is about. */
  sequence: z.int().positive(),
  /** For people: what the reboot is for. */
  message: textSchema,
  policy: openEnum(["never", "window", "now"]),
  /** Reboots that the agent asked for already. */
  requested: z.int().nonnegative(),
});

/** Things that one release may wait for. */
export const MAX_REPORT_WAITS = 20;

export const reportSchema = z.strictObject({
  /** A reader shows what it knows of a later version's, too. */
  formatVersion: z.int().positive(),
  hostname: hostnameSchema,
  /** Hashed machine-id; null if the host has none. */
  machineId: sha256Schema.nullable(),
  /** When the report was made, by the host's clock; an older one is a replay. */
  at: z.iso.datetime(),
  channel: channelSchema,
  /** The release that the host committed last. */
  release: z
    .strictObject({
      sequence: z.int().positive(),
      digest: sha256Schema,
      toplevel: storePathSchema,
      rebootNeeded: z.boolean(),
      /** When it became that: the stamp that a rollout's progress is drawn from. */
      committedAt: timeSchema.optional(),
    })
    .nullable(),
  /** The highest release that it ever accepted, whether or not it switched to it. */
  accepted: z
    .strictObject({
      epoch: z.int().nonnegative(),
      sequence: z.int().positive(),
      digest: sha256Schema,
    })
    .nullable(),
  /** The agent's state, such as `Idle`. */
  state: z.string().max(50),
  /** Why the last poll or attempt failed; null if nothing is wrong. */
  code: openEnum(ERROR_CODES).nullable(),
  message: z.string().max(2000).nullable(),
  profile: storePathSchema.nullable(),
  running: storePathSchema.nullable(),
  /** What was booted: its kernel runs. */
  booted: storePathSchema.nullable(),
  /** What the release that the last poll found waits for; absent if it waits for nothing. */
  waits: z
    .array(
      z.strictObject({
        reason: openEnum(WAIT_REASONS),
        message: z.string().max(2000),
        until: z.iso.datetime().nullable(),
      }),
    )
    .max(MAX_REPORT_WAITS)
    .optional(),
  /** Absent if the host is not held. */
  hold: z
    .strictObject({
      /** Null for a hold that cannot be read any more. */
      at: z.iso.datetime().nullable(),
      until: z.iso.datetime().nullable(),
      reason: z.string().max(MAX_HOLD_REASON).nullable(),
    })
    .optional(),
  /** How the host was changed by hand; absent if it was not. */
  drift: driftSchema.extend({ what: openEnum(DRIFTS) }).optional(),
  agentVersion: z.string().max(50),
  /** What the agent understands of what releases may require. */
  features: featuresSchema.optional(),
  /** What the machine runs; absent if its kind is not known. */
  platform: platformSchema.optional(),
  /**
   * The key that signed this, `NAME:BASE64`. It proves nothing by itself: it is for operators
   * who decide to trust a host at first sight.
   */
  publicKey: z.string().max(400).optional(),
  lastPoll: z
    .strictObject({
      at: timeSchema,
      /** What was decided about the release, such as `waiting`; null without one. */
      decision: z.string().max(50).nullable(),
      sequence: z.int().positive().nullable(),
    })
    .optional(),
  pendingReboot: pendingRebootSchema.optional(),
  failure: failureSchema.optional(),
  /** The file system of the store, in bytes; `free` is what an ordinary user may use. */
  disk: z.strictObject({ free: z.int().nonnegative(), total: z.int().nonnegative() }).optional(),
});
export type Report = z.infer<typeof reportSchema>;

/** A report of this or of another version: what is not known of it is not looked at. */
const anyVersionSchema = withUnknownKeys(reportSchema, "ignored");

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
  return parseReport(openEnvelope(bytes, trust, REPORT_PAYLOAD_TYPE).payload);
}

/** What an envelope's payload says, whoever signed it. Throws REPORT_INVALID. */
export function parseReport(payload: Buffer): Report {
  let json: unknown;
  try {
    json = JSON.parse(payload.toString("utf8"));
  } catch (cause) {
    throw new PullError("REPORT_INVALID", "the report is not JSON", { cause });
  }
  const parsed = anyVersionSchema.safeParse(json);
  if (!parsed.success) {
    throw new PullError("REPORT_INVALID", describeIssues(parsed.error, json));
  }
  return parsed.data;
}

import { createHash } from "node:crypto";
import { z } from "zod";
import { PullError } from "./errors.ts";
import { describeIssues } from "./schema-issues.ts";
import { signBytes, verifyBytes, type PublicKey, type SecretKey } from "./signing-key.ts";

/**
 * DSSE envelopes (Dead Simple Signing Envelope, protocol version 1): the signature
 * covers the payload's type and its exact bytes, so nothing is parsed before it is
 * verified and no canonical JSON is needed.
 */
export const RELEASE_PAYLOAD_TYPE = "application/vnd.nixos-pull.release+json";

/** More signatures than any threshold needs would only cost verification time. */
export const MAX_SIGNATURES = 32;

const base64Schema = z.base64({ error: "expected base64" });

export const envelopeSchema = z.strictObject({
  payloadType: z.string().max(200),
  payload: base64Schema,
  signatures: z
    .array(z.strictObject({ keyid: z.string().max(200).optional(), sig: base64Schema }))
    .max(MAX_SIGNATURES),
});

export type Envelope = z.infer<typeof envelopeSchema>;

/** A payload whose signatures were verified. */
export interface OpenedEnvelope {
  readonly payload: Buffer;
  /** sha256 of the payload in hex: the release's identity, whoever signed it. */
  readonly digest: string;
  /** Names of the distinct trusted keys whose signatures are valid. */
  readonly signedBy: readonly string[];
}

/** Who must have signed: at least `threshold` distinct keys of `publicKeys`. */
export interface TrustPolicy {
  readonly publicKeys: readonly PublicKey[];
  readonly threshold: number;
}

/** The bytes that are signed: DSSE's pre-authentication encoding (protocol.md, "PAE"). */
export function preAuthenticationEncoding(payloadType: string, payload: Uint8Array): Buffer {
  const type = Buffer.from(payloadType, "utf8");
  return Buffer.concat([
    Buffer.from(`DSSEv1 ${type.length} `),
    type,
    Buffer.from(` ${payload.length} `),
    payload,
  ]);
}

/** Signs `payload` with every key; gives the envelope as JSON text with a final newline. */
export function sealEnvelope(payload: Uint8Array, keys: readonly SecretKey[]): string {
  const message = preAuthenticationEncoding(RELEASE_PAYLOAD_TYPE, payload);
  const envelope: Envelope = {
    payloadType: RELEASE_PAYLOAD_TYPE,
    payload: Buffer.from(payload).toString("base64"),
    signatures: keys.map((key) => ({
      keyid: key.name,
      sig: signBytes(key, message).toString("base64"),
    })),
  };
  return `${JSON.stringify(envelope, null, 2)}\n`;
}

/**
 * Verifies an envelope read from outside. Throws ENVELOPE_INVALID,
 * PAYLOAD_TYPE_WRONG or SIGNATURE_THRESHOLD; what it gives back is authentic.
 */
export function openEnvelope(bytes: Uint8Array, trust: TrustPolicy): OpenedEnvelope {
  const envelope = parseEnvelope(bytes);
  if (envelope.payloadType !== RELEASE_PAYLOAD_TYPE) {
    throw new PullError(
      "PAYLOAD_TYPE_WRONG",
      `expected payload type ${RELEASE_PAYLOAD_TYPE}, found ${JSON.stringify(envelope.payloadType)}`,
    );
  }
  const payload = Buffer.from(envelope.payload, "base64");
  const message = preAuthenticationEncoding(envelope.payloadType, payload);
  // Keys are counted, never signatures: one key signing twice, or listed under two
  // names, is one voice (TUF specification, section 4.2.1, threshold).
  const voices = new Map<string, string>();
  for (const key of trust.publicKeys) {
    const signed = envelope.signatures.some(({ sig }) =>
      verifyBytes(key, message, Buffer.from(sig, "base64")),
    );
    if (signed) voices.set(key.text.slice(key.name.length), key.name);
  }
  if (voices.size < trust.threshold) {
    const claimed = envelope.signatures.map(({ keyid }) => keyid ?? "unnamed");
    throw new PullError(
      "SIGNATURE_THRESHOLD",
      `expected valid signatures by ${trust.threshold} of the trusted keys ` +
        `${trust.publicKeys.map((key) => key.name).join(", ")}; found ${voices.size} valid ` +
        `among ${claimed.length} (${claimed.join(", ") || "no signature at all"})`,
    );
  }
  return {
    payload,
    digest: createHash("sha256").update(payload).digest("hex"),
    signedBy: [...voices.values()],
  };
}

/** Reads the JSON form without verifying anything. Throws ENVELOPE_INVALID. */
export function parseEnvelope(bytes: Uint8Array): Envelope {
  const text = Buffer.from(bytes).toString("utf8");
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new PullError(
      "ENVELOPE_INVALID",
      `expected a signed manifest as JSON, found ${describeText(text)}`,
      { cause },
    );
  }
  const parsed = envelopeSchema.safeParse(json);
  if (!parsed.success) {
    throw new PullError(
      "ENVELOPE_INVALID",
      `expected a DSSE envelope: ${describeIssues(parsed.error, json)}`,
    );
  }
  return parsed.data;
}

function describeText(text: string): string {
  if (text.length === 0) return "an empty file";
  if (/^\s*</.test(text)) {
    return "an HTML or XML page (a captive portal, a proxy or an error page?)";
  }
  return `${JSON.stringify(text.slice(0, 60))}${text.length > 60 ? "…" : ""}`;
}

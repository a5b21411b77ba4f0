import * as z from "zod";
import { PullError } from "../errors.ts";
import {
  MAX_NAME_LENGTH,
  MAX_SIGNATURES,
  decodeBase64,
  decodedLength,
  readEnvelopeParts,
  type EnvelopeParts,
} from "./envelope-reader.ts";
import { sha256Hex } from "./sha256.ts";
import {
  keyMaterial,
  signBytes,
  verifyBytes,
  type PublicKey,
  type SecretKey,
} from "./signing-key.ts";

/**
 * DSSE envelopes (Dead Simple Signing Envelope, protocol version 1): the signature
 * covers the payload's type and its exact bytes, so nothing is parsed before it is
 * verified and no canonical JSON is needed.
 */
export const RELEASE_PAYLOAD_TYPE = "application/vnd.nixos-pull.release+json";

export { MAX_SIGNATURES };

const base64Schema = z.base64({ error: "expected base64" });

/** Text that a terminal shows as it is: no control, line separator or direction characters. */
export const printableSchema = z
  .string()
  .regex(
    /^[ -~\u00a0-\u200a\u2010-\u2027\u202f-\u205f\u2070-\ufefe\uff00-\uffff]*$/,
    "expected printable characters",
  );

export const envelopeSchema = z.strictObject({
  payloadType: z.string().max(MAX_NAME_LENGTH),
  payload: base64Schema,
  signatures: z
    .array(
      z.strictObject({ keyid: printableSchema.max(MAX_NAME_LENGTH).optional(), sig: base64Schema }),
    )
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
  /** Keys that no longer count, even if they are in `publicKeys`. */
  readonly revokedKeys?: readonly PublicKey[];
}

/**
 * The bytes that are signed: DSSE's pre-authentication encoding (protocol.md, "PAE"). With a
 * greater `length` than that of `payload`, there is room for the rest at the end.
 */
export function preAuthenticationEncoding(
  payloadType: string,
  payload: Uint8Array,
  length = payload.length,
): Buffer {
  const type = Buffer.from(payloadType, "utf8");
  const head = Buffer.concat([
    Buffer.from(`DSSEv1 ${type.length} `),
    type,
    Buffer.from(` ${length} `),
  ]);
  const encoded = Buffer.allocUnsafeSlow(head.length + length);
  encoded.set(head);
  encoded.set(payload, head.length);
  return encoded;
}

/** An envelope that nobody signed yet. */
export function unsignedEnvelope(
  payload: Uint8Array,
  payloadType: string = RELEASE_PAYLOAD_TYPE,
): Envelope {
  return { payloadType, payload: Buffer.from(payload).toString("base64"), signatures: [] };
}

/** The bytes that a signer of this envelope signs. */
export function signedBytesOf(envelope: Envelope): Buffer {
  return preAuthenticationEncoding(envelope.payloadType, Buffer.from(envelope.payload, "base64"));
}

/**
 * The envelope with one more signature; what it carries stays as it is, so the release
 * keeps its identity. Gives the same envelope if this signature is in it already.
 * Throws ENVELOPE_INVALID if it has as many signatures as a host reads.
 */
export function addSignature(envelope: Envelope, key: PublicKey, signature: Uint8Array): Envelope {
  const sig = Buffer.from(signature).toString("base64");
  if (envelope.signatures.some((known) => known.sig === sig)) return envelope;
  if (envelope.signatures.length >= MAX_SIGNATURES) {
    throw new PullError(
      "ENVELOPE_INVALID",
      `expected at most ${MAX_SIGNATURES} signatures, found as many already`,
    );
  }
  return { ...envelope, signatures: [...envelope.signatures, { keyid: key.name, sig }] };
}

/** The envelope as JSON text with a final newline. */
export function encodeEnvelope(envelope: Envelope): string {
  return `${JSON.stringify(envelope, null, 2)}\n`;
}

/** Signs `payload` with every key; gives the envelope as JSON text. */
export function sealEnvelope(
  payload: Uint8Array,
  keys: readonly SecretKey[],
  payloadType: string = RELEASE_PAYLOAD_TYPE,
): string {
  const envelope = unsignedEnvelope(payload, payloadType);
  const message = signedBytesOf(envelope);
  const signatures = keys.map((key) => ({
    keyid: key.publicKey.name,
    sig: Buffer.from(signBytes(key, message)).toString("base64"),
  }));
  return encodeEnvelope({ ...envelope, signatures });
}

/**
 * Verifies an envelope read from outside. Throws ENVELOPE_INVALID, PAYLOAD_TYPE_WRONG,
 * KEY_REVOKED or SIGNATURE_THRESHOLD; what it gives back is authentic.
 */
export function openEnvelope(
  bytes: Uint8Array,
  trust: TrustPolicy,
  payloadType: string = RELEASE_PAYLOAD_TYPE,
): OpenedEnvelope {
  const { payloadType: found, payload: base64, signatures } = readEnvelopeParts(bytes);
  expectPrintable(signatures);
  if (found !== payloadType) {
    throw new PullError(
      "PAYLOAD_TYPE_WRONG",
      `expected payload type ${payloadType}, found another one`,
    );
  }
  // One buffer for both: the payload may be large.
  const message = preAuthenticationEncoding(payloadType, new Uint8Array(0), decodedLength(base64));
  const payload = message.subarray(message.length - decodedLength(base64));
  decodeBase64(base64, payload);
  const revoked = new Set((trust.revokedKeys ?? []).map(keyMaterial));
  const known = [...trust.publicKeys, ...(trust.revokedKeys ?? [])];
  const all = voicesIn(signatures, message, known);
  const voices = new Map([...all].filter(([material]) => !revoked.has(material)));
  if (voices.size < trust.threshold) {
    const valid = trust.publicKeys.filter((key) => !revoked.has(keyMaterial(key)));
    const expected =
      `expected valid signatures by ${trust.threshold} of the trusted keys ` +
      `${valid.map((key) => key.name).join(", ") || "(none)"}; found ${voices.size} valid ` +
      `among ${signatures.length} (${claimed(signatures, known)})`;
    if (all.size < trust.threshold) throw new PullError("SIGNATURE_THRESHOLD", expected);
    const names = [...all].flatMap(([material, name]) => (revoked.has(material) ? [name] : []));
    throw new PullError("KEY_REVOKED", `${expected}; revoked here: ${names.join(", ")}`);
  }
  return { payload, digest: sha256Hex(payload), signedBy: [...voices.values()] };
}

/** What an envelope carries, in the least memory. Nothing is verified. Throws ENVELOPE_INVALID. */
export function unverifiedPayload(bytes: Uint8Array): { payloadType: string; payload: Buffer } {
  const { payloadType, payload: base64 } = readEnvelopeParts(bytes);
  const payload = Buffer.allocUnsafeSlow(decodedLength(base64));
  decodeBase64(base64, payload);
  return { payloadType, payload };
}

/** Whom signatures claim to be by. Names that nobody here knows are not repeated. */
function claimed(signatures: EnvelopeParts["signatures"], known: readonly PublicKey[]): string {
  if (signatures.length === 0) return "no signature at all";
  const names = new Set(known.map(({ name }) => name));
  const listed = signatures.flatMap(({ keyid }) =>
    keyid !== undefined && names.has(keyid) ? [keyid] : [],
  );
  const others = signatures.length - listed.length;
  return [...listed, ...(others > 0 ? [`${others} by keys that are not known here`] : [])].join(
    ", ",
  );
}

/**
 * The names of the keys that signed, by key material. Keys are counted, never
 * signatures: one key signing twice, or listed under two names, is one voice (TUF
 * specification, section 4.2.1, threshold).
 */
function voicesIn(
  signatures: EnvelopeParts["signatures"],
  message: Uint8Array,
  keys: readonly PublicKey[],
): Map<string, string> {
  // Each check reads the whole message, so that the same signature is checked once.
  const distinct = [...new Set(signatures.map(({ sig }) => sig))];
  const raw = distinct.map((sig) => Buffer.from(sig, "base64"));
  const voices = new Map<string, string>();
  for (const key of keys) {
    const material = keyMaterial(key);
    if (voices.has(material)) continue;
    if (raw.some((signature) => verifyBytes(key, message, signature))) {
      voices.set(material, key.name);
    }
  }
  return voices;
}

/** Reads the JSON form without verifying anything. Throws ENVELOPE_INVALID. */
export function parseEnvelope(bytes: Uint8Array): Envelope {
  const { payloadType, payload, signatures } = readEnvelopeParts(bytes);
  expectPrintable(signatures);
  const base64 = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
  return { payloadType, payload: base64.toString("latin1"), signatures: [...signatures] };
}

/** A signer's terminal shows these names. Throws ENVELOPE_INVALID. */
function expectPrintable(signatures: EnvelopeParts["signatures"]): void {
  for (const [at, { keyid = "" }] of signatures.entries()) {
    if (printableSchema.safeParse(keyid).success) continue;
    throw new PullError(
      "ENVELOPE_INVALID",
      `expected a DSSE envelope: signatures[${at}].keyid: expected printable characters`,
    );
  }
}

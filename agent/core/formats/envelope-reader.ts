import { PullError } from "../errors.ts";
import { JsonReader } from "./json-reader.ts";

/**
 * Reads the JSON form of an envelope before anything of it is verified. Anybody may have written
 * it, so it costs little memory: it is read as bytes, with as many names and values as an envelope
 * has, and messages say what was expected and where, never what was found.
 */

/** More signatures than any threshold needs would only cost verification time. */
export const MAX_SIGNATURES = 32;

/** Longest `payloadType` and `keyid`, characters. */
export const MAX_NAME_LENGTH = 200;

/** Longest signature in base64 that is looked at; one of Ed25519 has 88 characters. */
const MAX_SIGNATURE_LENGTH = 1_000;

/** An envelope as its bytes have it. */
export interface EnvelopeParts {
  readonly payloadType: string;
  /** Base64 in the standard alphabet, padded; a view of the file's bytes. */
  readonly payload: Uint8Array;
  readonly signatures: readonly { readonly keyid?: string; readonly sig: string }[];
}

/** Reads an envelope. Throws ENVELOPE_INVALID. */
export function readEnvelopeParts(bytes: Uint8Array): EnvelopeParts {
  const reader = new JsonReader(bytes, complaint);
  if (!reader.isAtObject()) throw notAnEnvelope(bytes);
  let payloadType: string | undefined;
  let payload: Uint8Array | undefined;
  let signatures: EnvelopeParts["signatures"] | undefined;
  reader.object("", {
    payloadType: () => (payloadType = reader.text("payloadType", MAX_NAME_LENGTH)),
    payload: () => (payload = readBase64(reader, "payload")),
    signatures: () => (signatures = readSignatures(reader)),
  });
  reader.end();
  return {
    payloadType: expectThere("payloadType", payloadType),
    payload: expectThere("payload", payload),
    signatures: expectThere("signatures", signatures),
  };
}

function readSignatures(reader: JsonReader): EnvelopeParts["signatures"] {
  const signatures: { keyid?: string; sig: string }[] = [];
  reader.list("signatures", MAX_SIGNATURES, (position) => {
    const part = `signatures[${position}]`;
    let keyid: string | undefined;
    let sig: string | undefined;
    reader.object(part, {
      keyid: () => (keyid = reader.text(`${part}.keyid`, MAX_NAME_LENGTH)),
      sig: () => (sig = readSignature(reader, `${part}.sig`)),
    });
    const named = keyid === undefined ? {} : { keyid };
    signatures.push({ ...named, sig: expectThere(`${part}.sig`, sig) });
  });
  return signatures;
}

function readSignature(reader: JsonReader, part: string): string {
  const base64 = readBase64(reader, part);
  if (base64.length > MAX_SIGNATURE_LENGTH) throw reader.unexpected(part, "a signature before");
  return Buffer.from(base64).toString("latin1");
}

function readBase64(reader: JsonReader, part: string): Uint8Array {
  const text = reader.plainText(part, "base64");
  if (!isBase64(text)) throw reader.unexpected(part, "base64 before");
  return text;
}

function complaint(part: string, expected: string, at: number): PullError {
  const where = part === "" ? "" : `${part}: `;
  return new PullError(
    "ENVELOPE_INVALID",
    `expected a DSSE envelope: ${where}expected ${expected} at byte ${at}`,
  );
}

function expectThere<T>(name: string, value: T | undefined): T {
  if (value !== undefined) return value;
  throw new PullError("ENVELOPE_INVALID", `expected a DSSE envelope: ${name}: missing`);
}

function notAnEnvelope(bytes: Uint8Array): PullError {
  const start = Buffer.from(bytes.subarray(0, 1_000)).toString("latin1");
  const found =
    start.length === 0
      ? "an empty file"
      : /^\s*</.test(start)
        ? "an HTML or XML page (a captive portal, a proxy or an error page?)"
        : "something else";
  return new PullError("ENVELOPE_INVALID", `expected a signed manifest as JSON, found ${found}`);
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PAD = "=".charCodeAt(0);
const NO_DIGIT = 0xff;
const DIGITS = new Uint8Array(256).fill(NO_DIGIT);
for (let at = 0; at < ALPHABET.length; at++) DIGITS[ALPHABET.charCodeAt(at)] = at;

function isBase64(text: Uint8Array): boolean {
  if (text.length % 4 !== 0) return false;
  let end = text.length;
  for (let pads = 0; pads < 2 && end > 0 && text[end - 1] === PAD; pads++) end--;
  for (let at = 0; at < end; at++) {
    if (DIGITS[text[at] ?? 0] === NO_DIGIT) return false;
  }
  return true;
}

/** Bytes that base64 stands for. */
export function decodedLength(base64: Uint8Array): number {
  const pads = base64.at(-1) !== PAD ? 0 : base64.at(-2) !== PAD ? 1 : 2;
  return (base64.length / 4) * 3 - pads;
}

/**
 * Decodes the payload of an envelope into `target`, from its start. Buffer's own decoder would
 * need the text as a string, as large as itself once more.
 */
export function decodeBase64(base64: Uint8Array, target: Uint8Array): void {
  let to = 0;
  for (let at = 0; at < base64.length; at += 4) {
    const group =
      (digit(base64[at]) << 18) |
      (digit(base64[at + 1]) << 12) |
      (digit(base64[at + 2]) << 6) |
      digit(base64[at + 3]);
    // Beyond its end a typed array ignores what padding stands for.
    target[to++] = group >> 16;
    target[to++] = group >> 8;
    target[to++] = group;
  }
}

/** A padding character counts as zero. */
function digit(byte: number | undefined): number {
  return (DIGITS[byte ?? 0] ?? 0) & 0x3f;
}

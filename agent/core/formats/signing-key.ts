import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign,
  verify,
  type KeyObject,
} from "node:crypto";
import { PullError } from "../errors.ts";

/**
 * Keys in Nix's own text form, `NAME:BASE64` (Nix manual, `nix key generate-secret`):
 * 32 bytes of public key, or 64 bytes of seed and public key. One pair signs store
 * paths and releases.
 */
export interface PublicKey {
  readonly name: string;
  /** The `NAME:BASE64` text, as in `trusted-public-keys`. */
  readonly text: string;
  readonly key: KeyObject;
}

export interface SecretKey {
  readonly name: string;
  readonly key: KeyObject;
  readonly publicKey: PublicKey;
}

/** What identifies a key, whatever its name: its public bytes, base64. */
export function keyMaterial(key: PublicKey): string {
  return key.text.slice(key.name.length + 1);
}

/** `keys` without those in `revoked`, under any name. */
export function withoutRevoked(
  keys: readonly PublicKey[],
  revoked: readonly PublicKey[],
): PublicKey[] {
  const gone = new Set(revoked.map(keyMaterial));
  return keys.filter((key) => !gone.has(keyMaterial(key)));
}

/** DER prefixes of an Ed25519 key (RFC 8410, section 10). */
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");
const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");

const PUBLIC_BYTES = 32;
const SECRET_BYTES = 64;
const SIGNATURE_BYTES = 64;
const NAME = /^[^\s:]{1,200}$/;

function split(text: string, what: string, bytes: number): { name: string; raw: Buffer } {
  const [name = "", base64 = "", ...rest] = text.trim().split(":");
  const raw = Buffer.from(base64, "base64");
  if (base64 === "" || !NAME.test(name) || rest.length > 0 || raw.toString("base64") !== base64) {
    // Without a colon it may be the name of a file; what was given is not repeated.
    const hint = text.includes(":") ? "" : "; give the key itself, not the name of its file";
    throw new PullError("KEY_INVALID", `expected a ${what} key as NAME:BASE64${hint}`);
  }
  if (raw.length !== bytes) {
    throw new PullError(
      "KEY_INVALID",
      `${what} key ${name}: expected ${bytes} bytes, found ${raw.length}` +
        (what === "public" && raw.length === SECRET_BYTES
          ? "; this is a SECRET key, keep it off hosts"
          : ""),
    );
  }
  return { name, raw };
}

/**
 * Points of small order, without their sign bit, also as encodings that are not reduced. Anybody
 * can make "signatures" that hold under such a key, for messages of his choice or for all.
 */
const SMALL_ORDER = new Set([
  "00".repeat(32),
  `01${"00".repeat(31)}`,
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  `ec${"ff".repeat(30)}7f`,
  `ed${"ff".repeat(30)}7f`,
  `ee${"ff".repeat(30)}7f`,
]);

function hasSmallOrder(raw: Buffer): boolean {
  const point = Buffer.from(raw);
  point[31] = (point[31] ?? 0) & 0x7f;
  return SMALL_ORDER.has(point.toString("hex"));
}

function publicKeyOf(name: string, raw: Buffer): PublicKey {
  if (hasSmallOrder(raw)) {
    throw new PullError(
      "KEY_INVALID",
      `public key ${name}: expected an Ed25519 key, found a point of small order, for which ` +
        "anybody can sign",
    );
  }
  return {
    name,
    text: `${name}:${raw.toString("base64")}`,
    key: createPublicKey({
      key: Buffer.concat([SPKI_PREFIX, raw]),
      format: "der",
      type: "spki",
    }),
  };
}

/** Reads `NAME:BASE64` of 32 bytes. Throws KEY_INVALID. */
export function parsePublicKey(text: string): PublicKey {
  const { name, raw } = split(text, "public", PUBLIC_BYTES);
  return publicKeyOf(name, raw);
}

/** Reads `NAME:BASE64` of 64 bytes (seed, then public key). Throws KEY_INVALID. */
export function parseSecretKey(text: string): SecretKey {
  const { name, raw } = split(text, "secret", SECRET_BYTES);
  const key = createPrivateKey({
    key: Buffer.concat([PKCS8_PREFIX, raw.subarray(0, 32)]),
    format: "der",
    type: "pkcs8",
  });
  const publicKey = publicKeyOf(name, raw.subarray(32));
  if (!createPublicKey(key).equals(publicKey.key)) {
    throw new PullError("KEY_INVALID", `secret key ${name}: its public half does not fit its seed`);
  }
  return { name, key, publicKey };
}

/** Makes a new pair; both texts end without a newline, as Nix writes them. */
export function generateKey(name: string): { secret: string; public: string } {
  if (!NAME.test(name)) {
    throw new PullError(
      "KEY_INVALID",
      `key name ${JSON.stringify(name)}: expected no white space and no colon`,
    );
  }
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const seed = privateKey.export({ format: "der", type: "pkcs8" }).subarray(PKCS8_PREFIX.length);
  const raw = publicKey.export({ format: "der", type: "spki" }).subarray(SPKI_PREFIX.length);
  return {
    secret: `${name}:${Buffer.concat([seed, raw]).toString("base64")}`,
    public: `${name}:${raw.toString("base64")}`,
  };
}

/** Ed25519 signature of `message`, 64 bytes. */
export function signBytes(key: SecretKey, message: Uint8Array): Buffer {
  return sign(null, message, key.key);
}

/** Whether `signature` is the key's signature of `message`. */
export function verifyBytes(key: PublicKey, message: Uint8Array, signature: Uint8Array): boolean {
  return signature.length === SIGNATURE_BYTES && verify(null, message, key.key, signature);
}

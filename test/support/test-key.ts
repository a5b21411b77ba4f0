import { createHash, createPrivateKey, createPublicKey } from "node:crypto";
import { parseSecretKey, type SecretKey } from "../../agent/core/formats/signing-key.ts";

const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");

/** The same key for the same seed text, whatever it is called. */
export function testKey(name: string, seedText: string = name): SecretKey {
  return parseSecretKey(secretKeyText(name, seedText));
}

/** `NAME:BASE64` of `testKey`'s secret half. */
export function secretKeyText(name: string, seedText: string = name): string {
  const seed = createHash("sha256").update(seedText).digest();
  const key = createPrivateKey({
    key: Buffer.concat([PKCS8_PREFIX, seed]),
    format: "der",
    type: "pkcs8",
  });
  const raw = createPublicKey(key).export({ format: "der", type: "spki" }).subarray(-32);
  return `${name}:${Buffer.concat([seed, raw]).toString("base64")}`;
}

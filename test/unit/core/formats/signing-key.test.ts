import { createHash, createPublicKey, verify } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  generateKey,
  keyMaterial,
  parsePublicKey,
  parseSecretKey,
  signBytes,
  verifyBytes,
  withoutRevoked,
} from "../../../../agent/core/formats/signing-key.ts";
import { failureOf } from "../../../support/failure.ts";
import { nix } from "../../../support/real-nix.ts";
import { secretKeyText, testKey } from "../../../support/test-key.ts";

const PUBLIC = testKey("fleet-1").publicKey.text;
const PUBLIC_BASE64 = PUBLIC.slice("fleet-1:".length);
const SECRET_BASE64 = secretKeyText("fleet-1").slice("fleet-1:".length);

describe("together with real Nix", () => {
  test("a key that Nix made is read, and its public half is the one that Nix derives", () => {
    const secret = nix(["key", "generate-secret", "--key-name", "cache.example.org-1"]);
    const key = parseSecretKey(secret);
    expect(key.name).toBe("cache.example.org-1");
    expect(key.publicKey.text).toBe(nix(["key", "convert-secret-to-public"], secret).trim());
    expect(parsePublicKey(key.publicKey.text).key.equals(key.publicKey.key)).toBe(true);
  });

  test("a key that we made is taken by Nix, which derives the public half that we give", () => {
    const pair = generateKey("fleet-1");
    expect(nix(["key", "convert-secret-to-public"], pair.secret).trim()).toBe(pair.public);
  });
});

describe("generateKey", () => {
  test("makes texts without a newline that are read again", () => {
    const pair = generateKey("a");
    expect(pair.secret).toMatch(/^a:[A-Za-z0-9+/]{86}==$/);
    expect(pair.public).toMatch(/^a:[A-Za-z0-9+/]{43}=$/);
    expect(parseSecretKey(pair.secret).publicKey.text).toBe(pair.public);
  });

  test("makes another key every time", () => {
    expect(generateKey("a").secret).not.toBe(generateKey("a").secret);
  });

  test.each(["", " ", "a b", "a:b", "a\n", "x".repeat(201)])("refuses the name %j", (name) => {
    const failure = failureOf(() => generateKey(name));
    expect(failure.code).toBe("KEY_INVALID");
    expect(failure.message).toContain(JSON.stringify(name));
  });
});

describe("malformed keys", () => {
  test.each([
    ["nothing", ""],
    ["a name alone", "fleet-1"],
    ["a name without a key", "fleet-1:"],
    ["a key without a name", `:${PUBLIC_BASE64}`],
    ["base64 alone", PUBLIC_BASE64],
    ["white space in the name", `fleet 1:${PUBLIC_BASE64}`],
    ["a name of 201 characters", `${"x".repeat(201)}:${PUBLIC_BASE64}`],
    ["three parts", `${PUBLIC}:more`],
    ["no base64 at all", "fleet-1:****"],
    ["base64 without its padding", PUBLIC.slice(0, -1)],
    [
      "base64 with white space inside",
      `fleet-1:${PUBLIC_BASE64.slice(0, 9)} ${PUBLIC_BASE64.slice(9)}`,
    ],
    ["the URL-safe alphabet", `fleet-1:${Buffer.alloc(32, 0xfb).toString("base64url")}=`],
    ["base64 with stray last bits", `fleet-1:${"A".repeat(42)}B=`],
    ["31 bytes", `fleet-1:${Buffer.alloc(31).toString("base64")}`],
    ["33 bytes", `fleet-1:${Buffer.alloc(33).toString("base64")}`],
    ["hex", `fleet-1:${Buffer.alloc(32).toString("hex")}`],
    ["a PEM file", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----"],
  ])("%s is no public key", (_, text) => {
    expect(failureOf(() => parsePublicKey(text)).code).toBe("KEY_INVALID");
  });

  test.each([
    ["nothing", ""],
    ["a public key", PUBLIC],
    ["63 bytes", `fleet-1:${Buffer.alloc(63).toString("base64")}`],
    ["65 bytes", `fleet-1:${Buffer.alloc(65).toString("base64")}`],
    ["a seed with another key's public half", `fleet-1:${mixedHalves()}`],
    ["64 zero bytes", `fleet-1:${Buffer.alloc(64).toString("base64")}`],
  ])("%s is no secret key", (_, text) => {
    expect(failureOf(() => parseSecretKey(text)).code).toBe("KEY_INVALID");
  });

  test("what is no NAME:BASE64 is told what was expected, and of which key", () => {
    for (const text of [":", "fleet-1:", "fleet-1:****", "fleet-1:AAAA:"]) {
      const messages = [parsePublicKey, parseSecretKey].map(
        (parse) => failureOf(() => parse(text)).message,
      );
      expect(messages).toEqual([
        "expected a public key as NAME:BASE64",
        "expected a secret key as NAME:BASE64",
      ]);
    }
  });

  test("the name of a file is no key, and is not repeated: it may be a key after all", () => {
    for (const text of ["", "keys/fleet-1.public", PUBLIC_BASE64]) {
      expect(failureOf(() => parsePublicKey(text)).message).toBe(
        "expected a public key as NAME:BASE64; give the key itself, not the name of its file",
      );
    }
  });

  const identity = Buffer.concat([Buffer.from([1]), Buffer.alloc(31)]);

  test("of small order are refused: anybody can sign for them", () => {
    // OpenSSL takes such a key, and a signature that nobody made, for any message.
    const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), identity]);
    const key = createPublicKey({ key: spki, format: "der", type: "spki" });
    const forged = Buffer.concat([identity, Buffer.alloc(32)]);
    expect(verify(null, Buffer.from("any message"), key, forged)).toBe(true);
    const last = (hex: string, sign: number): string =>
      hex.slice(0, 62) + (Number.parseInt(hex.slice(62), 16) | sign).toString(16).padStart(2, "0");
    for (const hex of [
      "00".repeat(32),
      identity.toString("hex"),
      "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
      "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
      `ec${"ff".repeat(30)}7f`,
      `ed${"ff".repeat(30)}7f`,
      `ee${"ff".repeat(30)}7f`,
    ]) {
      for (const sign of [0, 0x80]) {
        const text = `weak-1:${Buffer.from(last(hex, sign), "hex").toString("base64")}`;
        const failure = failureOf(() => parsePublicKey(text));
        expect(failure.code).toBe("KEY_INVALID");
        expect(failure.message).toContain("public key weak-1: expected an Ed25519 key, found a");
      }
    }
  });

  test("halves that do not fit are named, with the name of the key", () => {
    expect(failureOf(() => parseSecretKey(`fleet-1:${mixedHalves()}`)).message).toBe(
      "secret key fleet-1: its public half does not fit its seed",
    );
  });

  test("a wrong length is named with the length that was expected", () => {
    const text = `fleet-1:${Buffer.alloc(31).toString("base64")}`;
    expect(failureOf(() => parsePublicKey(text)).message).toBe(
      "public key fleet-1: expected 32 bytes, found 31",
    );
  });

  test("a secret key given as a public one is named as such", () => {
    const { message } = failureOf(() => parsePublicKey(secretKeyText("fleet-1")));
    expect(message).toContain("this is a SECRET key, keep it off hosts");
  });

  test("no message about a secret key repeats the key", () => {
    const cut = secretKeyText("fleet-1").slice(0, -4);
    for (const text of [cut, `${secretKeyText("fleet-1")}:more`, `fleet-1:${mixedHalves()}`]) {
      const { message } = failureOf(() => parseSecretKey(text));
      expect(message).not.toContain(SECRET_BASE64.slice(0, 16));
    }
    const { message } = failureOf(() => parsePublicKey(secretKeyText("fleet-1")));
    expect(message).not.toContain(SECRET_BASE64.slice(0, 16));
  });

  test("no text at all makes the readers throw anything but KEY_INVALID", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary-ascii", maxLength: 60 }), (text) => {
        expect(failureOf(() => parsePublicKey(text)).code).toBe("KEY_INVALID");
        expect(failureOf(() => parseSecretKey(text)).code).toBe("KEY_INVALID");
      }),
      { numRuns: 50 },
    );
  });
});

test("a revoked key is gone under every name, and no other one", () => {
  const [anna, bert] = [testKey("anna").publicKey, testKey("bert").publicKey];
  const alias = testKey("alias", "anna").publicKey;
  expect(keyMaterial(anna)).toBe(anna.text.slice("anna:".length));
  expect(keyMaterial(alias)).toBe(keyMaterial(anna));
  expect(withoutRevoked([anna, bert, alias], [alias])).toEqual([bert]);
  expect(withoutRevoked([anna, bert], [])).toEqual([anna, bert]);
});

test("white space around a key, as an editor leaves it, does no harm", () => {
  expect(parsePublicKey(`  ${PUBLIC}\n`).text).toBe(PUBLIC);
  expect(parseSecretKey(`${secretKeyText("fleet-1")}\r\n`).publicKey.text).toBe(PUBLIC);
});

describe("signatures", () => {
  const key = testKey("fleet-1");

  test("are deterministic, 64 bytes long and valid for their message alone", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1 }), fc.nat(), (message, bit) => {
        const signature = signBytes(key, message);
        expect(signature).toHaveLength(64);
        expect(signBytes(key, message)).toEqual(signature);
        expect(verifyBytes(key.publicKey, message, signature)).toBe(true);
        const altered = flipBit(message, bit);
        expect(verifyBytes(key.publicKey, altered, signature)).toBe(false);
        expect(verifyBytes(key.publicKey, message, flipBit(signature, bit))).toBe(false);
      }),
      { numRuns: 50 },
    );
  });

  test("of another key are not valid", () => {
    const message = Buffer.from("release");
    const signature = signBytes(testKey("fleet-1", "somebody else"), message);
    expect(verifyBytes(key.publicKey, message, signature)).toBe(false);
  });

  test.each([0, 1, 32, 63, 65, 128])("of %i bytes are not valid and do not throw", (length) => {
    expect(verifyBytes(key.publicKey, Buffer.from("x"), Buffer.alloc(length))).toBe(false);
  });
});

function flipBit(bytes: Uint8Array, bit: number): Uint8Array {
  const altered = Uint8Array.from(bytes);
  const at = (bit >> 3) % altered.length;
  altered[at] = (altered[at] ?? 0) ^ (1 << (bit & 7));
  return altered;
}

function mixedHalves(): string {
  const seed = createHash("sha256").update("one").digest();
  const other = testKey("x", "two").publicKey.key.export({ format: "der", type: "spki" });
  return Buffer.concat([seed, other.subarray(-32)]).toString("base64");
}

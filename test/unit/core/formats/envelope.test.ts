import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  MAX_SIGNATURES,
  RELEASE_PAYLOAD_TYPE,
  addSignature,
  encodeEnvelope,
  envelopeSchema,
  openEnvelope,
  parseEnvelope,
  preAuthenticationEncoding,
  sealEnvelope,
  signedBytesOf,
  unsignedEnvelope,
  type Envelope,
  type TrustPolicy,
} from "../../../../agent/core/formats/envelope.ts";
import { readManifest } from "../../../../agent/core/formats/manifest.ts";
import { signBytes, type SecretKey } from "../../../../agent/core/formats/signing-key.ts";
import { failureOf } from "../../../support/failure.ts";
import { testKey } from "../../../support/test-key.ts";

const ANNA = testKey("anna");
const BERT = testKey("bert");
const CARL = testKey("carl");
const STRANGER = testKey("stranger");
const PAYLOAD = Buffer.from('{"hello":"world"}');

function trust(threshold: number, ...keys: readonly SecretKey[]) {
  return { publicKeys: keys.map(({ publicKey }) => publicKey), threshold };
}

function sealed(...keys: readonly SecretKey[]): Envelope {
  return parseEnvelope(Buffer.from(sealEnvelope(PAYLOAD, keys)));
}

function bytesOf(envelope: unknown): Buffer {
  return Buffer.from(JSON.stringify(envelope));
}

describe("the signed bytes", () => {
  test("are those of the DSSE specification's test vector", () => {
    const encoded = preAuthenticationEncoding(
      "http://example.com/HelloWorld",
      Buffer.from("hello world"),
    );
    expect(encoded.toString()).toBe("DSSEv1 29 http://example.com/HelloWorld 11 hello world");
  });

  test("count bytes and not characters", () => {
    const encoded = preAuthenticationEncoding("tüpe", Buffer.from("größe"));
    expect(encoded.toString()).toBe("DSSEv1 5 tüpe 7 größe");
  });

  test("differ wherever type or payload differ", () => {
    const text = fc.string({ unit: fc.constantFrom("a", " ", "1") });
    fc.assert(
      fc.property(text, text, text, text, (type, payload, otherType, otherPayload) => {
        const same = type === otherType && payload === otherPayload;
        const one = preAuthenticationEncoding(type, Buffer.from(payload));
        const other = preAuthenticationEncoding(otherType, Buffer.from(otherPayload));
        expect(one.equals(other)).toBe(same);
      }),
    );
  });
});

describe("an envelope", () => {
  test("gives back the payload, its digest and who signed it", () => {
    const opened = openEnvelope(Buffer.from(sealEnvelope(PAYLOAD, [ANNA])), trust(1, ANNA, BERT));
    expect(opened.payload.equals(PAYLOAD)).toBe(true);
    expect(opened.digest).toBe(createHash("sha256").update(PAYLOAD).digest("hex"));
    expect(opened.signedBy).toEqual(["anna"]);
  });

  test("is the same text every time and ends with a newline", () => {
    const text = sealEnvelope(PAYLOAD, [ANNA, BERT]);
    expect(text).toBe(sealEnvelope(PAYLOAD, [ANNA, BERT]));
    expect(text.endsWith("}\n")).toBe(true);
  });

  test("has the same digest whoever signed it", () => {
    const one = openEnvelope(bytesOf(sealed(ANNA)), trust(1, ANNA));
    const two = openEnvelope(bytesOf(sealed(BERT, ANNA)), trust(2, ANNA, BERT));
    expect(one.digest).toBe(two.digest);
  });

  test("may leave key ids out", () => {
    const envelope = sealed(ANNA);
    const signatures = envelope.signatures.map(({ sig }) => ({ sig }));
    const opened = openEnvelope(bytesOf({ ...envelope, signatures }), trust(1, ANNA));
    expect(opened.signedBy).toEqual(["anna"]);
  });

  test("is not believed about key ids: the signature alone counts", () => {
    const envelope = sealed(STRANGER);
    const signatures = envelope.signatures.map(({ sig }) => ({ keyid: "anna", sig }));
    const failure = failureOf(() =>
      openEnvelope(bytesOf({ ...envelope, signatures }), trust(1, ANNA)),
    );
    expect(failure.code).toBe("SIGNATURE_THRESHOLD");
  });
});

describe("the threshold", () => {
  test.each([
    ["one of one", 1, [ANNA], [ANNA]],
    ["one of three", 1, [ANNA, BERT, CARL], [CARL]],
    ["two of three", 2, [ANNA, BERT, CARL], [CARL, ANNA]],
    ["three of three", 3, [ANNA, BERT, CARL], [ANNA, BERT, CARL]],
    ["two of three beside a stranger", 2, [ANNA, BERT, CARL], [STRANGER, BERT, ANNA]],
  ])("is met by %s", (_, threshold, trusted, signers) => {
    const opened = openEnvelope(bytesOf(sealed(...signers)), trust(threshold, ...trusted));
    const known = signers.filter((key) => key !== STRANGER).map(({ name }) => name);
    expect(opened.signedBy.toSorted()).toEqual(known.toSorted());
  });

  test.each([
    ["no signature", 1, [ANNA], [], "found 0 valid among 0 (no signature at all)"],
    [
      "an unknown key",
      1,
      [ANNA],
      [STRANGER],
      "found 0 valid among 1 (1 by keys that are not known here)",
    ],
    ["k-1 keys", 2, [ANNA, BERT, CARL], [ANNA], "found 1 valid among 1 (anna)"],
    ["k-1 keys and a stranger", 2, [ANNA, BERT], [ANNA, STRANGER], "found 1 valid among 2"],
    ["one key signing twice", 2, [ANNA, BERT], [ANNA, ANNA], "found 1 valid among 2"],
    ["one key signing 32 times", 2, [ANNA, BERT], Array<SecretKey>(32).fill(ANNA), "found 1 valid"],
  ])("is not met by %s", (_, threshold, trusted, signers, words) => {
    const failure = failureOf(() =>
      openEnvelope(bytesOf(sealed(...signers)), trust(threshold, ...trusted)),
    );
    expect(failure.code).toBe("SIGNATURE_THRESHOLD");
    expect(failure.message).toContain(words);
    expect(failure.message).toContain(`by ${threshold} of the trusted keys`);
  });

  test("counts a key that is trusted under two names once", () => {
    const alias = testKey("also-anna", "anna");
    const twice = trust(2, ANNA, alias);
    for (const signers of [[ANNA], [alias], [ANNA, alias]]) {
      const failure = failureOf(() => openEnvelope(bytesOf(sealed(...signers)), twice));
      expect(failure.code).toBe("SIGNATURE_THRESHOLD");
    }
    expect(openEnvelope(bytesOf(sealed(ANNA)), trust(1, ANNA, alias)).signedBy).toHaveLength(1);
  });

  test("needs two keys where two keys have the same name", () => {
    const namesake = testKey("anna", "another anna");
    const both = trust(2, ANNA, namesake);
    expect(failureOf(() => openEnvelope(bytesOf(sealed(ANNA)), both)).code).toBe(
      "SIGNATURE_THRESHOLD",
    );
    expect(openEnvelope(bytesOf(sealed(ANNA, namesake)), both).signedBy).toHaveLength(2);
  });

  test("is met exactly when enough distinct trusted keys signed", () => {
    const all = [ANNA, BERT, CARL, STRANGER];
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...all), { maxLength: 6 }),
        fc.subarray([ANNA, BERT, CARL], { minLength: 1 }),
        fc.integer({ min: 1, max: 4 }),
        (signers, trusted, threshold) => {
          const valid = new Set(signers.filter((key) => trusted.includes(key))).size;
          const open = () =>
            openEnvelope(bytesOf(sealed(...signers)), trust(threshold, ...trusted));
          if (valid >= threshold) expect(open().signedBy).toHaveLength(valid);
          else expect(failureOf(open).code).toBe("SIGNATURE_THRESHOLD");
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe("revoked keys", () => {
  const revoking = (threshold: number, trusted: SecretKey[], revoked: SecretKey[]) => ({
    ...trust(threshold, ...trusted),
    revokedKeys: revoked.map(({ publicKey }) => publicKey),
  });
  const openSealed = (policy: TrustPolicy, ...signers: SecretKey[]) =>
    openEnvelope(bytesOf(sealed(...signers)), policy);

  test("are no voices, and are not named among those that signed", () => {
    const policy = revoking(1, [ANNA, BERT], [BERT]);
    expect(openSealed(policy, ANNA, BERT).signedBy).toEqual(["anna"]);
    expect(openSealed(policy, BERT, ANNA).signedBy).toEqual(["anna"]);
  });

  test("are missing from the threshold, and the failure says so", () => {
    const policy = revoking(2, [ANNA, BERT, CARL], [BERT]);
    const failure = failureOf(() => openSealed(policy, ANNA, BERT));
    expect(failure.code).toBe("KEY_REVOKED");
    expect(failure.message).toBe(
      "expected valid signatures by 2 of the trusted keys anna, carl; " +
        "found 1 valid among 2 (anna, bert); revoked here: bert",
    );
    expect(openSealed(policy, ANNA, CARL).signedBy).toEqual(["anna", "carl"]);
  });

  test("are revoked under every name, and whether or not they are trusted otherwise", () => {
    const alias = testKey("also-bert", "bert");
    for (const policy of [
      revoking(1, [ANNA, BERT], [alias]),
      revoking(1, [ANNA, alias], [BERT]),
      revoking(1, [ANNA], [BERT]),
    ]) {
      expect(failureOf(() => openSealed(policy, BERT)).code).toBe("KEY_REVOKED");
    }
    const all = failureOf(() => openSealed(revoking(1, [BERT], [BERT]), BERT));
    expect(all.message).toContain("by 1 of the trusted keys (none)");
  });

  test("do not turn missing signatures into a revocation", () => {
    const policy = revoking(2, [ANNA, BERT, CARL], [BERT]);
    expect(failureOf(() => openSealed(policy, ANNA)).code).toBe("SIGNATURE_THRESHOLD");
    expect(failureOf(() => openSealed(policy, BERT)).code).toBe("SIGNATURE_THRESHOLD");
  });
});

describe("an envelope that is signed by one after the other", () => {
  const signedWith = (envelope: Envelope, key: SecretKey): Envelope =>
    addSignature(envelope, key.publicKey, signBytes(key, signedBytesOf(envelope)));

  test("is the same as one that all signed at once", () => {
    const both = signedWith(signedWith(unsignedEnvelope(PAYLOAD), ANNA), BERT);
    expect(encodeEnvelope(both)).toBe(sealEnvelope(PAYLOAD, [ANNA, BERT]));
    expect(openEnvelope(bytesOf(both), trust(2, ANNA, BERT)).signedBy).toEqual(["anna", "bert"]);
  });

  test("does not take the same signature twice", () => {
    const once = signedWith(unsignedEnvelope(PAYLOAD), ANNA);
    expect(signedWith(once, ANNA)).toBe(once);
  });

  test("takes as many as a host reads, and no more", () => {
    let envelope = unsignedEnvelope(PAYLOAD);
    for (let at = 0; at < MAX_SIGNATURES; at++) envelope = signedWith(envelope, testKey(`k${at}`));
    expect(parseEnvelope(bytesOf(envelope)).signatures).toHaveLength(MAX_SIGNATURES);
    expect(signedWith(envelope, testKey("k0"))).toBe(envelope);
    const failure = failureOf(() => signedWith(envelope, ANNA));
    expect(failure.code).toBe("ENVELOPE_INVALID");
    expect(failure.message).toContain(`at most ${MAX_SIGNATURES} signatures`);
  });

  test("may carry another type, which has to be asked for", () => {
    const type = "application/vnd.example";
    const bytes = Buffer.from(sealEnvelope(PAYLOAD, [ANNA], type));
    expect(openEnvelope(bytes, trust(1, ANNA), type).signedBy).toEqual(["anna"]);
    expect(failureOf(() => openEnvelope(bytes, trust(1, ANNA))).code).toBe("PAYLOAD_TYPE_WRONG");
  });
});

describe("a tampered envelope", () => {
  test("is refused whatever byte of its payload was altered", () => {
    const envelope = sealed(ANNA);
    fc.assert(
      fc.property(
        fc.nat({ max: PAYLOAD.length - 1 }),
        fc.integer({ min: 1, max: 255 }),
        (at, by) => {
          const altered = Buffer.from(PAYLOAD);
          altered[at] = (altered[at] ?? 0) ^ by;
          const bytes = bytesOf({ ...envelope, payload: altered.toString("base64") });
          expect(failureOf(() => openEnvelope(bytes, trust(1, ANNA))).code).toBe(
            "SIGNATURE_THRESHOLD",
          );
        },
      ),
    );
  });

  test("is refused where only the payload was signed, without its type", () => {
    const sig = signBytes(ANNA, PAYLOAD).toString("base64");
    const bytes = bytesOf({ ...sealed(), signatures: [{ keyid: "anna", sig }] });
    expect(failureOf(() => openEnvelope(bytes, trust(1, ANNA))).code).toBe("SIGNATURE_THRESHOLD");
  });

  test("is refused where a signature is cut short or longer", () => {
    const [signature] = sealed(ANNA).signatures;
    const raw = Buffer.from(signature?.sig ?? "", "base64");
    for (const wrong of [raw.subarray(0, 63), Buffer.concat([raw, Buffer.alloc(1)])]) {
      const bytes = bytesOf({ ...sealed(), signatures: [{ sig: wrong.toString("base64") }] });
      expect(failureOf(() => openEnvelope(bytes, trust(1, ANNA))).code).toBe("SIGNATURE_THRESHOLD");
    }
  });
});

describe("another payload type", () => {
  const type = "application/vnd.in-toto+json";

  test("is refused though it is signed as such", () => {
    const sig = signBytes(ANNA, preAuthenticationEncoding(type, PAYLOAD)).toString("base64");
    const bytes = bytesOf({ ...sealed(), payloadType: type, signatures: [{ sig }] });
    const failure = failureOf(() => openEnvelope(bytes, trust(1, ANNA)));
    expect(failure.code).toBe("PAYLOAD_TYPE_WRONG");
    expect(failure.message).toBe(
      `expected payload type ${RELEASE_PAYLOAD_TYPE}, found another one`,
    );
  });

  test("cannot be swapped in for a signed release", () => {
    const bytes = bytesOf({ ...sealed(ANNA), payloadType: type });
    expect(failureOf(() => openEnvelope(bytes, trust(1, ANNA))).code).toBe("PAYLOAD_TYPE_WRONG");
  });
});

describe("what is no envelope", () => {
  const envelope = sealed(ANNA);
  const text = sealEnvelope(PAYLOAD, [ANNA]);

  test.each([
    ["an empty file", "", "an empty file"],
    ["white space", " \n ", "expected a signed manifest as JSON"],
    ["an HTML page", "<!DOCTYPE html><html>Please log in</html>", "an HTML or XML page"],
    ["an HTML page after a blank line", "\n\n  <html>", "captive portal"],
    ["an XML error", "<?xml version='1.0'?><Error>NoSuchKey</Error>", "an HTML or XML page"],
    ["a truncated envelope", text.slice(0, text.length - 20), "signatures[0].sig: expected base64"],
    ["something after the end", `${text}{}`, `expected the end at byte ${text.length}`],
    ["a byte order mark", `\uFEFF${text}`, "expected a signed manifest as JSON"],
    ["plain words", "moved to another server", "found something else"],
    ["binary data", "\u0000\u0001\u0002", "found something else"],
    ["null", "null", "found something else"],
    ["a number", "1", "found something else"],
    ["a list", "[]", "found something else"],
    ["an empty object", "{}", "payloadType: missing"],
    ["an object without an end", "{", "expected text of at most 200 characters at byte 1"],
    ["a key without a value", '{"payload"}', "expected a colon at byte 10"],
    ["a key twice", '{"payload":"","payload":""}', "each once, at byte 14"],
    ["a comma too many", '{"payload":"",}', "expected text of at most 200 characters at byte 14"],
    ["two values", '{"payload":"" ""}', "expected a comma or the object's end at byte 14"],
  ])("%s is refused and described", (_, input, words) => {
    const failure = failureOf(() => openEnvelope(Buffer.from(input), trust(1, ANNA)));
    expect(failure.code).toBe("ENVELOPE_INVALID");
    expect(failure.message).toContain(words);
  });

  test.each([
    ["a field too many", { ...envelope, extra: 1 }, "expected only the keys payload"],
    [
      "a field too many in a signature",
      { ...envelope, signatures: [{ ...envelope.signatures[0], cert: "" }] },
      "signatures[0]: expected only the keys keyid, sig, each once, at byte",
    ],
    ["no payload", { ...envelope, payload: undefined }, "payload: missing"],
    [
      "a payload that is no text",
      { ...envelope, payload: { hello: "world" } },
      "payload: expected base64 at byte",
    ],
    ["a payload without padding", { ...envelope, payload: "YQ" }, "payload: expected base64"],
    ["a payload in URL-safe base64", { ...envelope, payload: "-_-_" }, "payload: expected base64"],
    [
      "a payload with line breaks",
      { ...envelope, payload: "YWFh\nYWFh" },
      "payload: expected base64",
    ],
    ["no signatures", { ...envelope, signatures: undefined }, "signatures: missing"],
    [
      "a signature that is no base64",
      { ...envelope, signatures: [{ sig: "!" }] },
      "signatures[0].sig",
    ],
    [
      "a numeric key id",
      { ...envelope, signatures: [{ keyid: 1, sig: "" }] },
      "signatures[0].keyid",
    ],
    [
      "too many signatures",
      { ...envelope, signatures: Array(MAX_SIGNATURES + 1).fill(envelope.signatures[0]) },
      "signatures: expected at most 32 elements",
    ],
    ["a payload type without an end", { ...envelope, payloadType: "x".repeat(201) }, "payloadType"],
  ])("%s is refused and named", (_, input, words) => {
    const failure = failureOf(() => openEnvelope(bytesOf(input), trust(1, ANNA)));
    expect(failure.code).toBe("ENVELOPE_INVALID");
    expect(failure.message).toContain(words);
  });

  test("a field called __proto__ is a field too many", () => {
    const bytes = Buffer.from(
      JSON.stringify(envelope).replace("{", '{"__proto__":{"payload":"x"},'),
    );
    const failure = failureOf(() => openEnvelope(bytes, trust(1, ANNA)));
    expect(failure.code).toBe("ENVELOPE_INVALID");
    expect(failure.message).toContain("expected only the keys payloadType, payload, signatures");
  });

  test("any bytes at all are refused with a trust error", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map((json) => Buffer.from(json)),
        ),
        (bytes) => {
          expect(failureOf(() => openEnvelope(bytes, trust(1, ANNA))).code).toBe(
            "ENVELOPE_INVALID",
          );
        },
      ),
    );
  });

  test("says nothing of what it has instead: it may be another service's answer", () => {
    const secret = "S3cret";
    const bodies: unknown[] = [
      secret,
      { [secret]: secret },
      { ...envelope, payload: secret },
      { ...envelope, payloadType: secret },
      { ...envelope, signatures: [{ keyid: secret, sig: secret }] },
      { ...envelope, signatures: [{ keyid: secret, sig: "" }] },
      { ...envelope, signatures: [{ sig: "", [secret]: 1 }] },
    ];
    for (const body of [...bodies.map(bytesOf), Buffer.from(secret)]) {
      const failure = failureOf(() => openEnvelope(body, trust(1, ANNA)));
      expect(failure.message).not.toContain(secret);
      expect(failure.cause).toBeUndefined();
    }
  });

  test("a message about it stays short however long it is", () => {
    const long = Buffer.from(`"${"x".repeat(1_000_000)}"`);
    expect(failureOf(() => openEnvelope(long, trust(1, ANNA))).message.length).toBeLessThan(300);
  });

  test("lists within lists without end are refused like anything else", () => {
    const nested = Buffer.from(`${"[".repeat(100_000)}${"]".repeat(100_000)}`);
    expect(failureOf(() => openEnvelope(nested, trust(1, ANNA))).code).toBe("ENVELOPE_INVALID");
  });
});

describe("reading an envelope", () => {
  const name = fc.string({ unit: "grapheme", maxLength: 100 });
  const base64 = fc.uint8Array({ maxLength: 300 }).map((it) => Buffer.from(it).toString("base64"));
  const value = fc.oneof(
    { weight: 20, arbitrary: base64 },
    fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<unknown>,
  );
  const signature = fc.record(
    { keyid: fc.oneof({ weight: 20, arbitrary: name }, fc.jsonValue({ maxDepth: 1 })), sig: value },
    { requiredKeys: ["sig"] },
  );
  const envelopes = fc.record(
    {
      payloadType: fc.oneof({ weight: 20, arbitrary: name }, fc.jsonValue({ maxDepth: 1 })),
      payload: value,
      signatures: fc.array(signature, { maxLength: 5 }),
    },
    { requiredKeys: ["payloadType", "payload"] },
  );

  test("gives what a JSON parser and the schema give, and refuses what they refuse", () => {
    let read = 0;
    fc.assert(
      fc.property(envelopes, fc.constantFrom(undefined, 2, "\t", " \r\n"), (envelope, space) => {
        const text = JSON.stringify(envelope, null, space);
        const expected = envelopeSchema.safeParse(JSON.parse(text));
        if (expected.success) {
          read++;
          expect(parseEnvelope(Buffer.from(text))).toEqual(expected.data);
        } else {
          const failure = failureOf(() => parseEnvelope(Buffer.from(text)));
          expect(failure.code).toBe("ENVELOPE_INVALID");
        }
      }),
      { numRuns: 1_000 },
    );
    expect(read).toBeGreaterThan(100);
  });

  test("decodes payloads of every length", () => {
    for (let length = 0; length < 70; length++) {
      const payload = Buffer.from(Array.from({ length }, (_, at) => (at * 37 + length) % 256));
      const bytes = Buffer.from(sealEnvelope(payload, [ANNA]));
      expect(openEnvelope(bytes, trust(1, ANNA)).payload.equals(payload)).toBe(true);
    }
  });
});

describe("nothing is parsed before it is verified", () => {
  test.each([
    ["a payload that is no JSON", "not json"],
    ["a payload of a newer format", '{"formatVersion":2}'],
    ["a payload of the wrong form", '{"formatVersion":1}'],
  ])("%s, unsigned, is only unsigned", (_, payload) => {
    const bytes = Buffer.from(sealEnvelope(Buffer.from(payload), [STRANGER]));
    expect(failureOf(() => readManifest(bytes, trust(1, ANNA))).code).toBe("SIGNATURE_THRESHOLD");
    const signed = Buffer.from(sealEnvelope(Buffer.from(payload), [ANNA]));
    expect(failureOf(() => readManifest(signed, trust(1, ANNA))).code).not.toBe(
      "SIGNATURE_THRESHOLD",
    );
  });

  test("the type is looked at before the signatures", () => {
    const bytes = bytesOf({ ...sealed(STRANGER), payloadType: "other" });
    expect(failureOf(() => openEnvelope(bytes, trust(1, ANNA))).code).toBe("PAYLOAD_TYPE_WRONG");
  });
});

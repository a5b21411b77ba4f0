import fc from "fast-check";
import { expect, test } from "vitest";
import {
  Sha256,
  expectSha256,
  sha256Hex,
  SHA256_HEX,
} from "../../../../agent/core/formats/sha256.ts";
import { failureOf } from "../../../support/failure.ts";

// FIPS 180-4, examples.
const ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

test("the digest is the standard's", () => {
  expect(sha256Hex("abc")).toBe(ABC);
  expect(sha256Hex("a", Buffer.from("b"), "c")).toBe(ABC);
  expect(sha256Hex()).toBe("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
});

test("bytes that come in pieces have the digest of the whole, and are counted and passed on", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array()), async (pieces) => {
      const source = async function* (): AsyncGenerator<Uint8Array> {
        yield* pieces;
      };
      const passed: Uint8Array[] = [];
      const hash = new Sha256();
      for await (const piece of hash.pass(source())) passed.push(piece);
      expect(passed).toEqual(pieces);
      const whole = Buffer.concat(pieces);
      expect(hash.size).toBe(whole.length);
      expect(hash.hex()).toBe(sha256Hex(whole));
      const other = new Sha256();
      await other.addAll(source());
      expect(other.hex()).toBe(sha256Hex(whole));
    }),
  );
});

test("bytes with another hash are ARCHIVE_CORRUPT, with what was expected and found", () => {
  expectSha256(Buffer.from("abc"), ABC, "the text");
  const { code, message } = failureOf(() => {
    expectSha256(Buffer.from("abc"), "0".repeat(64), "the text");
  });
  expect(code).toBe("ARCHIVE_CORRUPT");
  expect(message).toBe(`the text: expected sha256 ${"0".repeat(64)}, found ${ABC}`);
});

test("a digest's text is 64 digits in lower case, and nothing around them", () => {
  expect(SHA256_HEX.test(ABC)).toBe(true);
  for (const text of [ABC.toUpperCase(), ABC.slice(1), `${ABC}0`, ` ${ABC}`, `g${ABC.slice(1)}`]) {
    expect(SHA256_HEX.test(text)).toBe(false);
  }
});

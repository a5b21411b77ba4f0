import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeBase32,
  encodeBase32,
  storePathHash,
  storePathName,
  storePathNameSchema,
  storePathSchema,
} from "../../../../agent/core/formats/store-path.ts";
import { runNix } from "../../../support/real-nix.ts";

const DIGITS = "0123456789abcdfghijklmnpqrsvwxyz";

describe("base 32", () => {
  test("of any bytes is read back as the same bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const text = encodeBase32(bytes);
        expect(text).toMatch(new RegExp(`^[${DIGITS}]*$`));
        expect(decodeBase32(text, bytes.length)).toEqual(Buffer.from(bytes));
      }),
    );
  });

  test("of any digits is either refused or written back as the same digits", () => {
    fc.assert(
      fc.property(fc.stringMatching(new RegExp(`^[${DIGITS}]{52}$`)), (text) => {
        const bytes = decodeBase32(text, 32);
        if (bytes) expect(encodeBase32(bytes)).toBe(text);
        // 52 digits hold four bits more than 32 bytes; only zeros may stand there.
        else expect(DIGITS.indexOf(text.charAt(0))).toBeGreaterThan(1);
      }),
    );
  });

  test("is what nix-hash writes", () => {
    const hashes = fc.sample(fc.uint8Array({ minLength: 32, maxLength: 32 }), 50);
    const hex = hashes.map((bytes) => Buffer.from(bytes).toString("hex"));
    const written = runNix("nix-hash", ["--type", "sha256", "--to-base32", ...hex]);
    expect(hashes.map(encodeBase32)).toEqual(written.trim().split("\n"));
    const readBack = runNix("nix-hash", [
      "--type",
      "sha256",
      "--to-base16",
      ...hashes.map(encodeBase32),
    ]);
    expect(readBack.trim().split("\n")).toEqual(hex);
  });

  test.each([
    ["a digit less", DIGITS.charAt(1).repeat(51)],
    ["a digit more", DIGITS.charAt(1).repeat(53)],
    ["nothing", ""],
    ["the letter e", `e${"0".repeat(51)}`],
    ["the letter o", `${"0".repeat(51)}o`],
    ["the letter u", `u${"0".repeat(51)}`],
    ["the letter t", `t${"0".repeat(51)}`],
    ["capitals", "A".repeat(52)],
    ["bits beyond the last byte", `z${"0".repeat(51)}`],
  ])("is refused with %s", (_, text) => {
    expect(decodeBase32(text, 32)).toBeNull();
  });
});

describe("a store path", () => {
  const hash = "zzzz0123456789abcdfghijklmnpqrs0";

  test.each([
    `${hash}-a`,
    `${hash}-nixos-system-web1-26.05.20260131.abcdef`,
    `${hash}-A.b+c_d?e=f`,
    `${hash}-${"x".repeat(211)}`,
  ])("may be called %s", (name) => {
    expect(storePathNameSchema.safeParse(name).success).toBe(true);
    expect(storePathSchema.safeParse(`/nix/store/${name}`).success).toBe(true);
  });

  test.each([
    ["without a name", `${hash}-`],
    ["without a dash", hash],
    ["with a short hash", `${hash.slice(1)}-a`],
    ["with a letter that base 32 lacks", `e${hash.slice(1)}-a`],
    ["with a slash", `${hash}-a/b`],
    ["with a space", `${hash}-a b`],
    ["with a newline at its end", `${hash}-a\n`],
    ["with NUL", `${hash}-a\0`],
    ["with a letter beyond ASCII", `${hash}-ä`],
    ["that is too long", `${hash}-${"x".repeat(212)}`],
    ["that leads upwards", `../${hash}-a`],
  ])("is none %s", (_, name) => {
    expect(storePathNameSchema.safeParse(name).error?.issues).toMatchObject([
      { message: "expected a store path's base name, HASH-NAME" },
    ]);
    expect(storePathSchema.safeParse(`/nix/store/${name}`).error?.issues).toMatchObject([
      { message: "expected a store path, /nix/store/HASH-NAME" },
    ]);
  });

  test.each([
    ["elsewhere", `/gnu/store/${hash}-a`],
    ["relative", `nix/store/${hash}-a`],
    ["doubled slash", `/nix/store//${hash}-a`],
    ["ending in a slash", `/nix/store/${hash}-a/`],
    ["a base name", `${hash}-a`],
    ["no text", 1],
  ])("is not valid: %s", (_, path) => {
    expect(storePathSchema.safeParse(path).success).toBe(false);
  });

  test("gives its base name and hash, also from the base name", () => {
    for (const text of [`/nix/store/${hash}-a-1.0`, `${hash}-a-1.0`]) {
      expect(storePathName(text)).toBe(`${hash}-a-1.0`);
      expect(storePathHash(text)).toBe(hash);
    }
  });
});

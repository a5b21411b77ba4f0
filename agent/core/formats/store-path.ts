import * as z from "zod";

/** Nix's base-32 alphabet: digits and letters without e, o, t and u (Nix manual, "Base-32"). */
const ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz";

/** The digits of which a store path's hash is made. */
export const STORE_HASH_DIGITS = ALPHABET;

/** The store directory that every host of a release has (Nix manual, "Store path"). */
export const STORE_DIRECTORY = "/nix/store";

/**
 * Base name of a store path: 32 base-32 digits, a dash and a name of 1 to 211
 * characters (Nix manual, "Store path").
 */
export const STORE_PATH_NAME = new RegExp(`^[${ALPHABET}]{32}-[0-9a-zA-Z+._?=-]{1,211}$`);

/** Base name of a store path, `HASH-NAME`. */
export const storePathNameSchema = z
  .string()
  .regex(STORE_PATH_NAME, "expected a store path's base name, HASH-NAME");

/** A store path, `/nix/store/HASH-NAME`, with nothing below it. */
export const storePathSchema = z
  .string()
  .refine(
    (text) =>
      text.startsWith(`${STORE_DIRECTORY}/`) &&
      STORE_PATH_NAME.test(text.slice(STORE_DIRECTORY.length + 1)),
    { error: `expected a store path, ${STORE_DIRECTORY}/HASH-NAME` },
  );

/** The 32 digits that name a path's narinfo in a binary cache. */
export function storePathHash(nameOrPath: string): string {
  return storePathName(nameOrPath).slice(0, 32);
}

/** `HASH-NAME` of a store path; a base name is given back as it is. */
export function storePathName(nameOrPath: string): string {
  return nameOrPath.slice(nameOrPath.lastIndexOf("/") + 1);
}

/** Nix's base-32 text of a hash: little-endian groups of five bits, most significant first. */
export function encodeBase32(bytes: Uint8Array): string {
  const digits = Math.ceil((bytes.length * 8) / 5);
  let text = "";
  for (let digit = digits - 1; digit >= 0; digit--) {
    const bit = digit * 5;
    const index = bit >> 3;
    const shift = bit & 7;
    const pair = (bytes[index] ?? 0) | ((bytes[index + 1] ?? 0) << 8);
    text += ALPHABET.charAt((pair >> shift) & 31);
  }
  return text;
}

/** Bytes of a Nix base-32 text, or null if it is none of `length` bytes. */
export function decodeBase32(text: string, length: number): Buffer | null {
  if (text.length !== Math.ceil((length * 8) / 5)) return null;
  const bytes = Buffer.alloc(length);
  for (let digit = 0; digit < text.length; digit++) {
    const value = ALPHABET.indexOf(text.charAt(text.length - 1 - digit));
    if (value < 0) return null;
    const bit = digit * 5;
    const index = bit >> 3;
    const spread = value << (bit & 7);
    bytes[index] = (bytes[index] ?? 0) | (spread & 0xff);
    const carry = spread >> 8;
    if (index + 1 < length) bytes[index + 1] = carry;
    else if (carry !== 0) return null;
  }
  return bytes;
}

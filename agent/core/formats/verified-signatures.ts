import { createHash } from "node:crypto";
import { hasTrustedSignature, pathFingerprint, type NarInfo } from "./narinfo.ts";
import { MAX_PATHS } from "./index-schema.ts";
import type { PublicKey } from "./signing-key.ts";

/** Bytes that stand for a path's signatures: nobody finds others for the same (2^-128). */
const MARK_BYTES = 16;

const DIGEST_BYTES = 32;

/** More is not read: no index has so many paths. */
export const MAX_VERIFIED_BYTES = DIGEST_BYTES + MARK_BYTES * MAX_PATHS;

type SignedPath = Parameters<typeof hasTrustedSignature>[0] & Pick<NarInfo, "storePath">;

/**
 * Signatures of store paths that this host found right. To check one takes a tenth of a millisecond,
 * and an update brings few new ones. A mark stands for the path, its NAR, its references, its
 * signatures and all keys that are trusted: if one of them is another, the signature is checked.
 */
export class VerifiedSignatures {
  readonly #known: ReadonlySet<string>;
  readonly #marks = new Set<string>();

  /** `kept` is what `encode` gave; whatever is damaged of it, or null, stands for nothing. */
  constructor(kept: Uint8Array | null = null) {
    this.#known = decode(kept);
  }

  /** As `hasTrustedSignature`. */
  check(info: SignedPath, keys: readonly PublicKey[]): boolean {
    const mark = markOf(info, keys);
    if (!this.#known.has(mark) && !hasTrustedSignature(info, keys)) return false;
    this.#marks.add(mark);
    return true;
  }

  /** What `check` found right, for the next time. */
  encode(): Buffer {
    const marks = Buffer.from([...this.#marks].join(""), "latin1");
    return Buffer.concat([digestOf(marks), marks]);
  }
}

function markOf(info: SignedPath, keys: readonly PublicKey[]): string {
  const hash = createHash("sha256");
  // None of them has a newline (pathFingerprint; signing-key.ts).
  for (const { text } of keys) hash.update(`${text}\n`);
  hash.update("\n").update(pathFingerprint(info));
  for (const signature of info.signatures) hash.update(`\n${signature}`);
  return hash.digest().toString("latin1", 0, MARK_BYTES);
}

function digestOf(marks: Uint8Array): Buffer {
  return createHash("sha256").update(marks).digest();
}

function decode(kept: Uint8Array | null): Set<string> {
  const known = new Set<string>();
  if (kept === null) return known;
  const bytes = Buffer.from(kept.buffer, kept.byteOffset, kept.byteLength);
  const marks = bytes.subarray(DIGEST_BYTES);
  if (!digestOf(marks).equals(bytes.subarray(0, DIGEST_BYTES))) return known;
  for (let at = 0; at + MARK_BYTES <= marks.length; at += MARK_BYTES) {
    known.add(marks.toString("latin1", at, at + MARK_BYTES));
  }
  return known;
}

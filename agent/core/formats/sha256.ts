import { createHash, type Hash } from "node:crypto";
import { PullError } from "../errors.ts";

/** The form of a SHA-256 digest in file names and JSON: lower-case hexadecimal. */
export const SHA256_HEX = /^[0-9a-f]{64}$/;

/** The SHA-256 digest of these pieces, one after another, in lower-case hexadecimal. */
export function sha256Hex(...pieces: readonly (string | Uint8Array)[]): string {
  const hash = createHash("sha256");
  for (const piece of pieces) hash.update(piece);
  return hash.digest("hex");
}

/** Throws ARCHIVE_CORRUPT, naming `what`, unless the bytes have this digest. */
export function expectSha256(bytes: Uint8Array, expected: string, what: string): void {
  const found = sha256Hex(bytes);
  if (found === expected) return;
  throw new PullError("ARCHIVE_CORRUPT", `${what}: expected sha256 ${expected}, found ${found}`);
}

/** Hashes bytes that come piece by piece, and counts them. */
export class Sha256 {
  readonly #hash: Hash = createHash("sha256");
  #size = 0;

  /** Adds the next piece. */
  add(piece: Uint8Array): void {
    this.#hash.update(piece);
    this.#size += piece.length;
  }

  /** Adds every piece of a stream. Throws what the stream throws. */
  async addAll(source: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const piece of source) this.add(piece);
  }

  /** Passes a stream on, and adds what passes. */
  async *pass<T extends Uint8Array>(source: AsyncIterable<T>): AsyncGenerator<T> {
    for await (const piece of source) {
      this.add(piece);
      yield piece;
    }
  }

  /** Bytes added so far. */
  get size(): number {
    return this.#size;
  }

  /** The digest, in lower-case hexadecimal. Nothing can be added after it. */
  hex(): string {
    return this.#hash.digest("hex");
  }
}

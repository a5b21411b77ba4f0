import { PullError } from "../errors.ts";

/** Reads exact numbers of bytes from a stream of pieces. */
export class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** Passes on the next `length` bytes in pieces. Throws ARCHIVE_TRUNCATED if they end early. */
  async *pieces(length: number): AsyncGenerator<Uint8Array> {
    let left = length;
    while (left > 0) {
      if (this.#rest.length === 0) {
        const next = await this.#source.next();
        if (next.done === true) {
          throw new PullError(
            "ARCHIVE_TRUNCATED",
            `the archive ends ${left} bytes before the end of what its index promises`,
          );
        }
        this.#rest = next.value;
      }
      const piece = this.#rest.subarray(0, left);
      this.#rest = this.#rest.subarray(piece.length);
      left -= piece.length;
      yield piece;
    }
  }

  /** The next `length` bytes. Throws as `pieces`. */
  async take(length: number): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    for await (const piece of this.pieces(length)) parts.push(piece);
    return Buffer.concat(parts);
  }

  /** Reads past the next `length` bytes. Throws as `pieces`. */
  async skip(length: number): Promise<void> {
    const pieces = this.pieces(length);
    while ((await pieces.next()).done !== true);
  }

  /** Lets the source close its file or connection. */
  async close(): Promise<void> {
    await this.#source.return?.();
  }
}

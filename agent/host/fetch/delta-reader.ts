import type { Delta } from "../../core/transfer/delta.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import type { Mirror } from "../../core/ports.ts";
import { ByteReader } from "../../core/transfer/byte-reader.ts";
import { expectSha256 } from "../../core/formats/sha256.ts";

/** Deltas are read so many bytes at a time: few requests, and soon something to do. */
const BATCH_BYTES = 256 * 1024;

/** Deltas that lie at most this far apart are read with one request. */
const GAP = 4 * 1024;

/** What came for a delta: its bytes, or why the mirror does not have it. */
type Answer = Buffer | PullError;

/**
 * Reads deltas from a mirror in a given order, one batch ahead of whoever takes them, so
 * that the link is busy while NARs are made. Holds two batches in memory at most.
 */
export class DeltaReader {
  readonly #mirror: Mirror;
  readonly #signal: AbortSignal;
  readonly #onBytes: (count: number) => void;
  readonly #closing = new AbortController();
  readonly #batches: Delta[][];
  #ahead: Promise<Map<Delta, Answer>> | null;
  #current = new Map<Delta, Answer>();

  constructor(
    deltas: readonly Delta[],
    mirror: Mirror,
    { signal, onBytes }: { signal: AbortSignal; onBytes: (count: number) => void },
  ) {
    this.#mirror = mirror;
    this.#signal = AbortSignal.any([signal, this.#closing.signal]);
    this.#onBytes = onBytes;
    this.#batches = inBatches(deltas);
    this.#ahead = this.#readNext();
  }

  /**
   * The bytes of a delta, which have the signed hash. Deltas are taken in the order in which
   * they were given, each once. Throws ARCHIVE_PARTIAL if the mirror lacks this one,
   * ARCHIVE_CORRUPT, the mirror's errors.
   */
  async take(delta: Delta): Promise<Buffer> {
    while (!this.#current.has(delta)) {
      if (!this.#ahead) throw new Error("a delta was taken that nobody announced");
      this.#current = await this.#ahead;
      this.#ahead = this.#readNext();
    }
    const answer = this.#current.get(delta);
    this.#current.delete(delta);
    if (!answer) throw new Error("a delta was taken twice");
    if (answer instanceof PullError) throw answer;
    return answer;
  }

  /** Ends what is still being read. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#ahead?.catch(() => undefined);
  }

  #readNext(): Promise<Map<Delta, Answer>> | null {
    const batch = this.#batches.shift();
    if (!batch) return null;
    const reading = this.#mirror.ranges
      ? this.#readBatch(batch)
      : Promise.reject(
          new PullError("ARCHIVE_PARTIAL", `${this.#mirror.address} serves no ranges`),
        );
    // Whoever takes the next delta hears of it.
    reading.catch(() => undefined);
    return reading;
  }

  async #readBatch(batch: readonly Delta[]): Promise<Map<Delta, Answer>> {
    try {
      return await this.#read(batch);
    } catch (thrown) {
      const error = toPullError(thrown);
      const [only] = batch;
      if (error.code !== "ARCHIVE_PARTIAL" || !only) throw error;
      if (batch.length === 1) return new Map([[only, error]]);
      // A stick has the deltas that its maker knew a base for; the store may have others too.
      const answers = new Map<Delta, Answer>();
      for (const delta of batch) {
        for (const [one, answer] of await this.#readBatch([delta])) answers.set(one, answer);
      }
      return answers;
    }
  }

  /** Reads deltas by as few requests as are worth it. */
  async #read(deltas: readonly Delta[]): Promise<Map<Delta, Answer>> {
    const read = new Map<Delta, Answer>();
    const known = new Map<string, Buffer>();
    const sorted = deltas.toSorted(
      (a, b) =>
        (a.archive.sha256 < b.archive.sha256 ? -1 : a.archive.sha256 > b.archive.sha256 ? 1 : 0) ||
        a.offset - b.offset,
    );
    for (let first = sorted[0]; first; first = sorted[0]) {
      const { archive, offset: from } = first;
      let to = from;
      const run: Delta[] = [];
      while (sorted[0]?.archive.sha256 === archive.sha256) {
        const { offset, size } = sorted[0];
        if (run.length > 0 && offset - to > GAP) break;
        run.push(sorted[0]);
        to = Math.max(to, offset + size);
        sorted.shift();
      }
      const source = this.#mirror.readArchive(archive.sha256, { from, to }, this.#signal);
      const reader = new ByteReader(source);
      try {
        let at = from;
        for (const delta of run) {
          const same = known.get(delta.sha256);
          if (same) read.set(delta, same);
          if (same || delta.offset < at) continue;
          await reader.skip(delta.offset - at);
          const bytes = await reader.take(delta.size);
          at = delta.offset + delta.size;
          this.#onBytes(bytes.length);
          expectSha256(bytes, delta.sha256, `a delta in ${archive.sha256}.tar`);
          known.set(delta.sha256, bytes);
          read.set(delta, bytes);
        }
      } finally {
        await reader.close();
      }
    }
    return read;
  }
}

function inBatches(deltas: readonly Delta[]): Delta[][] {
  const batches: Delta[][] = [];
  let bytes = Infinity;
  for (const delta of deltas) {
    if (bytes + delta.size > BATCH_BYTES) {
      batches.push([]);
      bytes = 0;
    }
    batches.at(-1)?.push(delta);
    bytes += delta.size;
  }
  return batches;
}

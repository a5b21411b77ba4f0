import { setTimeout as sleep } from "node:timers/promises";
import { ownActivity } from "../process/activity.ts";
import { PullError } from "../../core/errors.ts";

/** Something that came in so many bytes. */
interface Received {
  readonly length: number;
}

/**
 * Passes a stream on as long as it comes at `minRate` bytes a second or faster, measured over
 * windows of `windowMs`. Only the time spent waiting for the source counts, so that our own
 * pauses are not held against a mirror. Throws MIRROR_SLOW. (TUF: slow retrieval attack. A source
 * that sends nothing at all meets the stall timer instead.)
 */
export async function* withRateFloor<Piece extends Received>(
  source: AsyncIterable<Piece>,
  { minRate, windowMs, name }: { minRate: number; windowMs: number; name: string },
): AsyncGenerator<Piece> {
  const iterator = source[Symbol.asyncIterator]();
  let waited = 0;
  let received = 0;
  try {
    for (;;) {
      const asked = performance.now();
      const next = await iterator.next();
      if (next.done === true) return;
      waited += performance.now() - asked;
      received += next.value.length;
      if (waited >= windowMs) {
        const rate = (received / waited) * 1000;
        if (rate < minRate) {
          throw new PullError(
            "MIRROR_SLOW",
            `${name}: expected at least ${minRate} bytes a second over ` +
              `${windowMs / 1000} s, found ${Math.round(rate)}`,
          );
        }
        waited = 0;
        received = 0;
      }
      yield next.value;
    }
  } finally {
    await iterator.return?.();
  }
}

/** Keeps all streams that pass through it below one rate together. */
export class Pacer {
  readonly #maxRate: number;
  /** When the bytes that passed so far were due at the maximum rate, by `performance.now()`. */
  #due = 0;

  /** `maxRate` is in bytes a second; 0 means no limit. */
  constructor(maxRate: number) {
    this.#maxRate = maxRate;
  }

  async *pace<Piece extends Received>(
    source: AsyncIterable<Piece>,
    signal?: AbortSignal,
  ): AsyncGenerator<Piece> {
    for await (const piece of source) {
      yield piece;
      if (this.#maxRate === 0) continue;
      const now = performance.now();
      this.#due = Math.max(this.#due, now) + (piece.length / this.#maxRate) * 1000;
      const wait = this.#due - now;
      if (wait < 1) continue;
      try {
        await ownActivity.during(wait, () => sleep(wait, undefined, signal ? { signal } : {}));
      } catch (cause) {
        throw new PullError("INTERRUPTED", "stopped while reading the archive", { cause });
      }
    }
  }
}

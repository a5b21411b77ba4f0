import { AsyncLocalStorage } from "node:async_hooks";

/**
 * Signs of life of the agent's own work: bytes that come, programs that run, waits that have an
 * end. Work that goes on beside it, such as answers to who asks for metrics, gives none: it
 * would hide that the rest hangs.
 */
export class Activity {
  /** Waits under way, by when they have to be over. */
  readonly #waits = new Set<{ readonly until: number }>();
  readonly #beside = new AsyncLocalStorage<true>();
  readonly #now: () => number;
  #last: number;

  /** `now` gives steady milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#last = now();
  }

  /** Something happened. */
  sign(): void {
    if (!this.#beside.getStore()) this.#last = this.#now();
  }

  /** Does something that is alive for so long, however silent it is. Gives what it gives. */
  async during<T>(ms: number, work: () => Promise<T>): Promise<T> {
    if (this.#beside.getStore()) return work();
    const wait = { until: this.#now() + ms };
    this.#waits.add(wait);
    try {
      return await work();
    } finally {
      this.#waits.delete(wait);
      this.sign();
    }
  }

  /** Passes a stream on, each piece of which may take so long. */
  async *pieces<T>(source: AsyncIterable<T>, ms: number): AsyncGenerator<T> {
    const iterator = source[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = await this.during(ms, () => iterator.next());
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      await iterator.return?.();
    }
  }

  /** Does something beside the agent's own work. */
  beside<T>(work: () => T): T {
    return this.#beside.run(true, work);
  }

  /** How long there was no sign of life; 0 while a wait is under way that is not over yet. */
  silence(): number {
    let last = this.#last;
    for (const { until } of this.#waits) last = Math.max(last, until);
    return Math.max(0, this.#now() - last);
  }
}

/** This process's. */
export const ownActivity = new Activity();

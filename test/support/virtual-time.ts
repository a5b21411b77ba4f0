import { PullError } from "../../agent/core/errors.ts";
import type { Clock, Timers } from "../../agent/core/ports.ts";

interface Sleeper {
  readonly at: number;
  readonly wake: () => void;
}

/**
 * A clock that stands still while anything runs. Once all that runs waits for time to pass, it
 * jumps to the first moment that somebody waits for: hours pass in milliseconds, and always in
 * the same order.
 */
export class VirtualTime implements Clock, Timers {
  #elapsed = 0;
  #start: number;
  #sleepers: Sleeper[] = [];
  #jumping = false;

  constructor(start: string) {
    this.#start = Date.parse(start);
  }

  now(): Date {
    return new Date(this.#start + this.#elapsed);
  }

  /** Sets the clock of the host, as a person or NTP does; the steady clock goes on. */
  set(time: string): void {
    this.#start = Date.parse(time) - this.#elapsed;
  }

  /** Lets time pass while nothing runs. */
  advance(ms: number): void {
    this.#elapsed += ms;
  }

  steadyMs(): number {
    return this.#elapsed;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        this.#sleepers = this.#sleepers.filter((it) => it !== sleeper);
        reject(new PullError("INTERRUPTED", "stopped before it was finished"));
      };
      const sleeper: Sleeper = {
        at: this.#elapsed + ms,
        wake: () => {
          signal?.removeEventListener("abort", stop);
          resolve();
        },
      };
      if (signal?.aborted) {
        stop();
        return;
      }
      signal?.addEventListener("abort", stop);
      this.#sleepers.push(sleeper);
      this.#jumpWhenIdle();
    });
  }

  /** An immediate comes after all that only waits for promises. */
  #jumpWhenIdle(): void {
    if (this.#jumping) return;
    this.#jumping = true;
    setImmediate(() => {
      this.#jumping = false;
      const [first] = this.#sleepers.sort((a, b) => a.at - b.at);
      if (!first || first.at === Infinity) return;
      this.#elapsed = Math.max(this.#elapsed, first.at);
      this.#sleepers = this.#sleepers.filter((it) => it !== first);
      first.wake();
      this.#jumpWhenIdle();
    });
  }
}

/** A rate is that of the last so many milliseconds: long enough to be calm. */
const WINDOW_MS = 10_000;
/** Samples are this far apart at least, so that few are kept. */
const SAMPLE_MS = 250;
/** Before that a rate says nothing. */
const MIN_WINDOW_MS = 1_000;

/** How fast something comes, by how much of it was there when. Times are monotonic milliseconds. */
export class Pace {
  #samples: { readonly at: number; readonly done: number }[] = [];

  /** Hears how much is there at a time; less than before is a new beginning. */
  hear(done: number, at: number): void {
    const last = this.#samples.at(-1);
    if (last && done < last.done) this.#samples = [];
    else if (last && at - last.at < SAMPLE_MS) return;
    this.#samples.push({ at, done });
    while (this.#samples.length > 2 && at - (this.#samples[1]?.at ?? at) >= WINDOW_MS) {
      this.#samples.shift();
    }
  }

  /** Bytes a second until a time, when `done` are there; null if that is not known yet. */
  rate(done: number, at: number): number | null {
    const first = this.#samples[0];
    if (!first || at - first.at < MIN_WINDOW_MS) return null;
    return Math.max(0, (done - first.done) / (at - first.at)) * 1000;
  }
}

import type { FetchProgress } from "../../core/ports.ts";
import { formatPart, formatRate } from "../../core/text/quantity.ts";
import { describeSpan } from "../../core/text/times.ts";
import { Pace } from "../../core/transfer/pace.ts";
import { ProgressLine, note } from "./output.ts";

/** How far something is: `340 of 812 MiB, 12.0 MiB/s, 39 s left`. */
export function describeProgress({ received, total }: FetchProgress, rate: number | null): string {
  const part = formatPart(received, total);
  if (rate === null) return part;
  const left = total - received;
  const end = rate < 1 || left <= 0 ? "" : `, ${describeSpan((left / rate) * 1000)} left`;
  return `${part}, ${formatRate(rate)}${end}`;
}

/** Elsewhere than on a terminal, a line comes so often. */
const LINE_EVERY_MS = 30_000;

/** Shows how far a download is: in one line of a terminal, or now and then in a line of its own. */
export class DownloadProgress {
  readonly #line = new ProgressLine();
  readonly #pace = new Pace();
  #next = performance.now() + LINE_EVERY_MS;

  /** Hears how far it is. */
  hear(progress: FetchProgress): void {
    const now = performance.now();
    this.#pace.hear(progress.received, now);
    const rate = this.#pace.rate(progress.received, now);
    const text = `downloading: ${describeProgress(progress, rate)}`;
    this.#line.show(text);
    if (process.stderr.isTTY || now < this.#next) return;
    this.#next = now + LINE_EVERY_MS;
    note(text);
  }

  /** Ends the line before something else is printed. */
  clear(): void {
    this.#line.clear();
  }
}

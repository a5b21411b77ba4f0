import { PullError } from "../errors.ts";
import { sanitize } from "../text/sanitize.ts";

/** So much of what a failed check printed is kept for the history. */
const MAX_LINES = 20;
const MAX_LINE = 300;

/** An operator's health check that failed, with what it printed last. Its code is HEALTH_FAILED. */
export class CheckFailure extends PullError {
  /** The last lines of its output, bounded, and harmless to a terminal. */
  readonly lastLines: readonly string[];

  /** `lines` is what the check printed; only the last ones are kept. */
  constructor(message: string, lines: readonly string[], options?: { cause?: unknown }) {
    super("HEALTH_FAILED", message, options);
    this.lastLines = lines.slice(-MAX_LINES).map((line) => sanitize(line, MAX_LINE));
  }
}

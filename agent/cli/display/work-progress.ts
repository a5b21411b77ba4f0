import { Pace } from "../../core/transfer/pace.ts";
import { ProgressLine, note } from "./output.ts";
import { describeProgress } from "./progress.ts";

/** Not on a terminal, a line tells how far the work is each time this has passed. */
const PLAIN_MS = 30_000;

/** Where progress is shown; a test gives its own. */
export interface ProgressOutput {
  readonly isTerminal: boolean;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly line: Pick<ProgressLine, "show" | "clear">;
  /** Prints a whole line. */
  readonly say: (line: string) => void;
}

/** How far a part of the work is. */
export interface WorkDone {
  /** Names the part in lines: `packing web1`. */
  readonly what: string;
  /** Bytes that are done. */
  readonly done: number;
  /** Bytes in all. */
  readonly of: number;
  /** Stands before the bytes, such as `3 of 20 paths`. */
  readonly count?: string | undefined;
}

/**
 * Shows how far a long command is: on a terminal in one line that is rewritten, with rate and time
 * left; elsewhere, such as in CI, in a plain line now and then.
 */
export class WorkProgress {
  readonly #output: ProgressOutput;
  #part = "";
  #pace = new Pace();
  #said: number;

  constructor(
    output: ProgressOutput = {
      isTerminal: process.stderr.isTTY,
      now: () => performance.now(),
      line: new ProgressLine(),
      say: note,
    },
  ) {
    this.#output = output;
    this.#said = output.now();
  }

  /** Bytes are done of a part; `part` is the same as long as rates may be compared. */
  hear(part: string, { what, done, of, count }: WorkDone): void {
    const now = this.#output.now();
    if (part !== this.#part) this.#pace = new Pace();
    this.#part = part;
    this.#pace.hear(done, now);
    const far = describeProgress(
      { received: Math.min(done, of), total: of },
      this.#pace.rate(done, now),
    );
    this.step(`${what}: ${count === undefined ? "" : `${count}, `}${far}`);
  }

  /** What is done now, in words. */
  step(text: string): void {
    const { isTerminal, line, say, now } = this.#output;
    if (isTerminal) {
      line.show(text);
      return;
    }
    if (now() - this.#said < PLAIN_MS) return;
    this.#said = now();
    say(text);
  }

  /** The same, for what only a terminal shows: lines of other programs. */
  aside(text: string): void {
    if (this.#output.isTerminal) this.#output.line.show(text);
  }

  /** Ends the line before something else is printed. */
  clear(): void {
    this.#output.line.clear();
  }
}

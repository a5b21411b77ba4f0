import type { PullError } from "../../core/errors.ts";
import { sanitizeLines } from "../../core/text/sanitize.ts";

/**
 * Prints lines; results go to standard output, everything else to standard error. Whatever a
 * manifest, a program or a report wrote into them, the terminal shows it and does not obey it.
 */
export function printLine(line: string): void {
  process.stdout.write(`${sanitizeLines(line)}\n`);
}

/** A line on standard error, for a person: progress, warnings and errors. It never shares a line with progress. */
export function note(line: string): void {
  ProgressLine.endOpen();
  process.stderr.write(`${sanitizeLines(line)}\n`);
}

/** An error as a person reads it: the code, then what was expected and found. */
export function describeError(error: PullError): string {
  return `nixos-pull: ${error.code}: ${error.message}`;
}

/** Rows as aligned columns, two spaces apart. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [at, cell] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, cell.length);
  }
  return rows
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** A line that is rewritten in place on a terminal and stays away elsewhere. */
export class ProgressLine {
  readonly #shown = process.stderr.isTTY;
  #next = 0;
  #dirty = false;
  /** The line that the cursor stands in, if its owner has not cleared it. */
  static #open: ProgressLine | null = null;

  /** Goes to a new line if progress is still shown: an error may come before anybody clears it. */
  static endOpen(): void {
    if (!ProgressLine.#open) return;
    process.stderr.write("\n");
    ProgressLine.#open.#dirty = false;
    ProgressLine.#open = null;
  }

  /** Shows `text`, at most ten times a second. */
  show(text: string): void {
    if (!this.#shown || performance.now() < this.#next) return;
    this.#next = performance.now() + 100;
    process.stderr.write(
      `\r\u001b[K${sanitizeLines(text).slice(0, (process.stderr.columns || 80) - 1)}`,
    );
    this.#dirty = true;
    ProgressLine.#open = this;
  }

  /** Ends the line before something else is printed. */
  clear(): void {
    if (this.#dirty) process.stderr.write("\r\u001b[K");
    this.#dirty = false;
    if (ProgressLine.#open === this) ProgressLine.#open = null;
    this.#next = 0;
  }
}

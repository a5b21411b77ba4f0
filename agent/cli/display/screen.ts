import { sanitizeLines } from "../../core/text/sanitize.ts";

/**
 * What a piece of text means; its colour follows. `good`: as it should be. `bad`: a person has to
 * look. `busy`: something is going on. `waiting`: something is to come. `dim`: a detail.
 */
export type Style = "good" | "bad" | "busy" | "waiting" | "strong" | "dim";

/** A piece of text, with its style if it has one. */
export interface Span {
  readonly style?: Style | undefined;
  readonly text: string;
}

/** Text for one line of a screen. It may come from anywhere: it is made harmless when it is shown. */
export type Text = string | Span | readonly (string | Span)[];

/** A line of a table, which fits as it is. */
export class TableLine {
  readonly spans: readonly (string | Span)[];

  constructor(spans: readonly (string | Span)[]) {
    this.spans = spans;
  }
}

/** A line for `render`: text that is broken to fit, or a line of a table. */
export type Line = Text | TableLine;

/** How lines are laid out. */
export interface Layout {
  /** How far to the right of its first word a line goes on that is broken; 0 if absent. */
  readonly hang?: number;
}

/** What is known of the terminal that shows the text, if one does. */
export interface Screen {
  /** Where lines are broken; Infinity if they are not, as in a file or a pipe. */
  readonly columns: number;
  readonly colour: boolean;
}

/** A narrower terminal breaks the lines by itself. */
const MIN_COLUMNS = 80;
/** Longer lines are hard to read. */
const MAX_COLUMNS = 160;
/** A cell is no narrower, however wide those before it are. */
const MIN_CELL = 20;

/** Select Graphic Rendition (ECMA-48, 8.3.117): the parameters that begin and end a style. */
const SGR: Record<Style, readonly [number, number]> = {
  good: [32, 39],
  bad: [31, 39],
  busy: [36, 39],
  waiting: [33, 39],
  strong: [1, 22],
  dim: [2, 22],
};

/** A piece of text with a style. */
export function styled(style: Style, text: string): Span {
  return { style, text };
}

/**
 * What a stream is: colour on a terminal that has it, unless NO_COLOR is set; FORCE_COLOR decides
 * before all others, as in Node and other programs.
 */
export function screenOf(
  stream: { readonly isTTY?: boolean; readonly columns?: number },
  env: Readonly<Record<string, string | undefined>> = process.env,
): Screen {
  const isTerminal = stream.isTTY === true;
  const columns = Math.max(MIN_COLUMNS, stream.columns ?? MIN_COLUMNS);
  return {
    columns: isTerminal ? Math.min(columns, MAX_COLUMNS) : Infinity,
    colour: hasColour(isTerminal, env),
  };
}

function hasColour(
  isTerminal: boolean,
  {
    NO_COLOR: no,
    FORCE_COLOR: force,
    TERM: term,
  }: Readonly<{ NO_COLOR?: string; FORCE_COLOR?: string; TERM?: string }>,
): boolean {
  if (force !== undefined) return force !== "0" && force !== "false";
  return isTerminal && (no ?? "") === "" && term !== "dumb";
}

/** The same text without its styles. */
export function plain(text: Text): string {
  return spansOf(text)
    .map((it) => it.text)
    .join("");
}

/** Whether there is nothing to be seen. */
function isEmpty(text: Text): boolean {
  return plain(text) === "";
}

/**
 * Lines as the screen shows them, harmless whatever they came from. A line that is too long is
 * broken between words, and goes on where its first word stands, or as the layout says.
 */
export function render(
  lines: readonly Line[],
  { columns, colour }: Screen,
  { hang = 0 }: Layout = {},
): string {
  const shown = lines.flatMap((line) =>
    line instanceof TableLine ? [line.spans] : broken(line, columns, hang),
  );
  return shown.map((line) => paint(line, colour)).join("\n");
}

/**
 * Rows as aligned columns, `gap` blanks apart. The last column is broken to fit and goes on below
 * itself. Gives lines for `render`.
 */
export function table(
  rows: readonly (readonly Text[])[],
  { columns }: Screen,
  { gap = 2 }: { readonly gap?: number } = {},
): TableLine[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [at, cell] of row.slice(0, -1).entries()) {
      widths[at] = Math.max(widths[at] ?? 0, plain(cell).length);
    }
  }
  return rows.flatMap((row) => {
    const before = row.slice(0, -1).flatMap((cell, at) => {
      const blanks = (widths[at] ?? 0) - plain(cell).length + gap;
      return [...spansOf(cell), ...spansOf(" ".repeat(blanks))];
    });
    const start = plain(before).length;
    const cells = row
      .slice(-1)
      .flatMap((cell) => broken(cell, Math.max(columns - start, MIN_CELL), 0));
    if (cells.every(isEmpty)) return [new TableLine(trimmed(before))];
    return cells.map(
      (cell, at) => new TableLine([...(at === 0 ? before : [" ".repeat(start)]), ...cell]),
    );
  });
}

/** Prints lines on standard output, as it shows them. */
export function show(lines: readonly Line[], layout: Layout = {}): void {
  process.stdout.write(`${render(lines, screenOf(process.stdout), layout)}\n`);
}

/** Prints lines on standard error: progress and warnings. */
export function showNote(lines: readonly Line[], layout: Layout = {}): void {
  process.stderr.write(`${render(lines, screenOf(process.stderr), layout)}\n`);
}

function spansOf(text: Text): readonly Span[] {
  const parts = Array.isArray(text)
    ? (text as readonly (string | Span)[])
    : [text as string | Span];
  return parts.map((part) => (typeof part === "string" ? { text: part } : part));
}

/** A text in lines that are no longer than `columns`, if its words allow that. */
function broken(text: Text, columns: number, hang: number): (readonly (string | Span)[])[] {
  return linesOf(spansOf(text)).flatMap((line) => {
    const words = line.map((it) => it.text).join("");
    const indent = (/^ */.exec(words)?.[0].length ?? 0) + hang;
    const pieces: (readonly (string | Span)[])[] = [];
    let start = 0;
    for (let end = endOf(words, start, columns); ; end = endOf(words, start, columns - indent)) {
      const part = cut(line, start, end);
      pieces.push(start === 0 ? part : [" ".repeat(indent), ...part]);
      start = end;
      while (words[start] === " ") start++;
      if (start >= words.length) return pieces.map(trimmed);
    }
  });
}

/** Spans, apart at the line ends in them. */
function linesOf(pieces: readonly Span[]): Span[][] {
  const lines: Span[][] = [[]];
  for (const piece of pieces) {
    for (const [at, text] of piece.text.replaceAll("\t", " ").split("\n").entries()) {
      if (at > 0) lines.push([]);
      lines.at(-1)?.push({ ...piece, text });
    }
  }
  return lines;
}

/** Where the line that begins at `start` ends: after its last word that fits, or its first word. */
function endOf(words: string, start: number, columns: number): number {
  if (words.length - start <= columns) return words.length;
  const first = words.slice(start).search(/[^ ]/);
  const fits = words.lastIndexOf(" ", start + columns);
  if (fits > start + first) return fits;
  const next = words.indexOf(" ", start + Math.max(first, 0));
  return next < 0 ? words.length : next;
}

/** The part of a line from one column to another. */
function cut(line: readonly Span[], from: number, to: number): (string | Span)[] {
  let column = 0;
  return line.flatMap(({ text, style }) => {
    const start = column;
    column += text.length;
    const part = text.slice(Math.max(0, from - start), Math.max(0, to - start));
    return part === "" ? [] : [style ? { style, text: part } : part];
  });
}

/** A line without the blanks at its end. */
function trimmed(line: readonly (string | Span)[]): (string | Span)[] {
  const pieces = line.map((it) => (typeof it === "string" ? { text: it } : it));
  return cut(
    pieces,
    0,
    pieces
      .map((it) => it.text)
      .join("")
      .trimEnd().length,
  );
}

/** One line as it is written. This is where text from anywhere becomes harmless. */
function paint(line: readonly (string | Span)[], colour: boolean): string {
  return spansOf(line)
    .map(({ text, style }) => {
      const harmless = sanitizeLines(text).replaceAll("\n", " ");
      if (!style || !colour) return harmless;
      const [begin, end] = SGR[style];
      return `\u001b[${begin}m${harmless}\u001b[${end}m`;
    })
    .join("");
}

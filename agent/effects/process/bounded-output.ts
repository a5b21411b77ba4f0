import { StringDecoder } from "node:string_decoder";

/** Output of a program, of which only so many bytes are kept: from its start, or from its end. */
export class BoundedOutput {
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #size = 0;
  #cutStart = false;
  #cutEnd = false;

  /** `limit` is in bytes. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Adds output, and drops what comes after the limit. */
  keepStart(chunk: Buffer): void {
    const room = this.#limit - this.#size;
    this.#cutEnd ||= chunk.length > room;
    if (room > 0) this.#add(chunk.subarray(0, room));
  }

  /** Adds output, and drops the oldest above the limit. */
  keepEnd(chunk: Buffer): void {
    this.#add(chunk);
    // Cut rarely: otherwise much output in small pieces is copied again for each of them.
    if (this.#size > 2 * this.#limit) this.#cut();
  }

  /** What was kept, as UTF-8. A character that the limit cut in two is left out. */
  text(): string {
    this.#cut();
    let text = Buffer.concat(this.#chunks).toString("utf8");
    if (this.#cutStart) text = text.replace(/^\ufffd+/, "");
    if (this.#cutEnd) text = text.replace(/\ufffd+$/, "");
    return text;
  }

  #add(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
  }

  #cut(): void {
    if (this.#size <= this.#limit) return;
    this.#chunks = [Buffer.concat(this.#chunks).subarray(-this.#limit)];
    this.#size = this.#limit;
    this.#cutStart = true;
  }
}

/** Cuts output into lines. A line longer than `limit` characters comes in pieces of that length. */
export class LineSplitter {
  readonly #decoder = new StringDecoder("utf8");
  readonly #onLine: (line: string) => void;
  readonly #limit: number;
  #rest = "";

  constructor(onLine: (line: string) => void, limit: number) {
    this.#onLine = onLine;
    this.#limit = limit;
  }

  /** Takes the next piece of output; calls `onLine` for every line that it completes. */
  take(chunk: Buffer): void {
    const lines = (this.#rest + this.#decoder.write(chunk)).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#pass(line);
    while (this.#rest.length > this.#limit) {
      this.#onLine(this.#rest.slice(0, this.#limit));
      this.#rest = this.#rest.slice(this.#limit);
    }
  }

  /** Passes on a last line that has no newline. */
  end(): void {
    if (this.#rest !== "") this.#pass(this.#rest);
    this.#rest = "";
  }

  #pass(line: string): void {
    for (let at = 0; at === 0 || at < line.length; at += this.#limit) {
      this.#onLine(line.slice(at, at + this.#limit));
    }
  }
}

/** The last `count` lines that are not empty. */
export function lastLines(text: string, count: number): string[] {
  return text
    .split("\n")
    .map((line) => line.trimEnd())
    .filter((line) => line !== "")
    .slice(-count);
}

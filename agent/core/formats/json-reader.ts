/**
 * Reads JSON as bytes, value by value, for what anybody may have written: a whole tree of values
 * would take many times the memory of its text. Whoever reads says what comes next; messages say
 * what was expected and where, and never repeat what was found.
 */

/** Makes the error: what was expected, of which part, at which byte. */
export type Complaint = (part: string, expected: string, at: number) => Error;

const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a];
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST] = [0x7b, 0x7d, 0x5b, 0x5d];

/** A character takes six bytes at most in JSON: a backslash, `u` and four digits. */
const MAX_BYTES_PER_CHARACTER = 6;

/** Longest key of an object, characters. */
const MAX_KEY_LENGTH = 200;

/** Longest name of a member that may have any name, such as a host's, characters. */
const MAX_MEMBER_LENGTH = 253;

/** Keys of one object that a reader may pass over. */
const MAX_OTHER_KEYS = 100;

/** All methods throw what `complain` makes. */
export class JsonReader {
  readonly #bytes: Buffer;
  readonly #complain: Complaint;
  #at = 0;

  constructor(bytes: Uint8Array, complain: Complaint) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#complain = complain;
  }

  /** Whether an object comes next. */
  isAtObject(): boolean {
    return this.#peek() === OPEN_OBJECT;
  }

  /**
   * An object with some of these keys, each at most once; `fields` read their values. With
   * `others: "skipped"`, it may have a few other keys, each once, whose values are passed over.
   */
  object(
    part: string,
    fields: Readonly<Record<string, () => unknown>>,
    { others = "refused" }: { readonly others?: "skipped" | "refused" } = {},
  ): void {
    const left = new Map(Object.entries(fields));
    const skipped = new Set<string>();
    const skip = (key: string) => (): void => {
      skipped.add(key);
      this.skip(part);
    };
    const isOther = (key: string): boolean =>
      others === "skipped" &&
      !Object.hasOwn(fields, key) &&
      !skipped.has(key) &&
      skipped.size < MAX_OTHER_KEYS;
    const keys = Object.keys(fields).join(", ");
    if (!this.#takes(OPEN_OBJECT)) throw this.unexpected(part, "an object");
    if (this.#takes(CLOSE_OBJECT)) return;
    do {
      this.#peek();
      const at = this.#at;
      const key = this.text(part, MAX_KEY_LENGTH);
      const read = left.get(key) ?? (isOther(key) ? skip(key) : undefined);
      if (!read) throw this.unexpected(part, `only the keys ${keys}, each once,`, at);
      left.delete(key);
      if (!this.#takes(COLON)) throw this.unexpected(part, "a colon");
      read();
    } while (this.#takes(COMMA));
    if (!this.#takes(CLOSE_OBJECT)) throw this.unexpected(part, "a comma or the object's end");
  }

  /** An object of at most `max` members with any names, each once; `read` reads their values. */
  members(part: string, max: number, read: (name: string) => unknown): void {
    if (!this.#takes(OPEN_OBJECT)) throw this.unexpected(part, "an object");
    if (this.#takes(CLOSE_OBJECT)) return;
    const names = new Set<string>();
    do {
      if (names.size >= max) throw this.unexpected(part, `at most ${max} members`);
      this.#peek();
      const at = this.#at;
      const name = this.text(part, MAX_MEMBER_LENGTH);
      if (names.has(name)) throw this.unexpected(part, "each name once,", at);
      names.add(name);
      if (!this.#takes(COLON)) throw this.unexpected(part, "a colon");
      read(name);
    } while (this.#takes(COMMA));
    if (!this.#takes(CLOSE_OBJECT)) throw this.unexpected(part, "a comma or the object's end");
  }

  /** A list of at most `max` elements; `read` reads each of them, by its position. */
  list(part: string, max: number, read: (position: number) => unknown): void {
    if (!this.#takes(OPEN_LIST)) throw this.unexpected(part, "a list");
    if (this.#takes(CLOSE_LIST)) return;
    let position = 0;
    do {
      if (position >= max) throw this.unexpected(part, `at most ${max} elements`);
      read(position++);
    } while (this.#takes(COMMA));
    if (!this.#takes(CLOSE_LIST)) throw this.unexpected(part, "a comma or the list's end");
  }

  /** A string of at most `max` characters. */
  text(part: string, max: number): string {
    const expected = `text of at most ${max} characters`;
    if (this.#peek() !== QUOTE) throw this.unexpected(part, expected);
    const from = this.#at;
    const limit = Math.min(this.#bytes.length, from + 2 + max * MAX_BYTES_PER_CHARACTER);
    const to = this.#stringEnd(from, limit);
    const text = to === null ? null : this.#parse(from, to);
    if (typeof text !== "string" || text.length > max) throw this.unexpected(part, expected);
    return text;
  }

  /** The bytes between the quotes of a string without escapes. */
  plainText(part: string, expected: string): Uint8Array {
    if (this.#peek() !== QUOTE) throw this.unexpected(part, expected);
    const from = this.#at + 1;
    const to = this.#bytes.indexOf(QUOTE, from);
    if (to < 0) throw this.unexpected(part, expected);
    this.#at = to + 1;
    return this.#bytes.subarray(from, to);
  }

  /** Any value whose text has at most `maxBytes`, parsed. */
  value(part: string, maxBytes: number): unknown {
    this.#peek();
    const from = this.#at;
    const to = this.#valueEnd(from, Math.min(this.#bytes.length, from + maxBytes));
    const value = to === null ? undefined : this.#parse(from, to);
    if (value === undefined) throw this.unexpected(part, `a value of at most ${maxBytes} bytes`);
    return value;
  }

  /** Any value, which is passed over: whether its inside is JSON is not looked at. */
  skip(part: string): void {
    this.#peek();
    const to = this.#valueEnd(this.#at, this.#bytes.length);
    if (to === null || to === this.#at) throw this.unexpected(part, "a value");
    this.#at = to;
  }

  /** Nothing but white space may be left. */
  end(): void {
    this.#peek();
    if (this.#at < this.#bytes.length) throw this.unexpected("", "the end");
  }

  /** The error for what comes next, or for what lies at a byte. */
  unexpected(part: string, expected: string, at = this.#at): Error {
    return this.#complain(part, expected, at);
  }

  /** Parses bytes and goes on behind them; undefined if they are no JSON. */
  #parse(from: number, to: number): unknown {
    try {
      const value: unknown = JSON.parse(this.#bytes.toString("utf8", from, to));
      this.#at = to;
      return value;
    } catch {
      return undefined;
    }
  }

  /** The offset behind the string that begins at `from`; null if it is not before `limit`. */
  #stringEnd(from: number, limit: number): number | null {
    let to = from + 1;
    while (to < limit && this.#bytes[to] !== QUOTE) to += this.#bytes[to] === BACKSLASH ? 2 : 1;
    return to < limit ? to + 1 : null;
  }

  /** The offset behind the value that begins at `from`; null if it is not before `limit`. */
  #valueEnd(from: number, limit: number): number | null {
    let depth = 0;
    for (let at = from; at < limit; at++) {
      switch (this.#bytes[at]) {
        case QUOTE: {
          const end = this.#stringEnd(at, limit);
          if (end === null || depth === 0) return end;
          at = end - 1;
          break;
        }
        case OPEN_OBJECT:
        case OPEN_LIST:
          depth++;
          break;
        case CLOSE_OBJECT:
        case CLOSE_LIST:
          // At depth 0 it ends what this value stands in.
          if (depth === 0) return at;
          if (--depth === 0) return at + 1;
          break;
        case COMMA:
          if (depth === 0) return at;
          break;
        default:
      }
    }
    return limit === this.#bytes.length && depth === 0 ? limit : null;
  }

  /** The next byte that is no white space; undefined at the end. */
  #peek(): number | undefined {
    for (;;) {
      const byte = this.#bytes[this.#at];
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return byte;
      this.#at++;
    }
  }

  /** Whether this byte comes next; then it is read. */
  #takes(byte: number): boolean {
    if (this.#peek() !== byte) return false;
    this.#at++;
    return true;
  }
}

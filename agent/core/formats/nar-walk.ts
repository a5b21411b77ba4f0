/**
 * Reads a NAR as it streams by and tells which file each byte of contents belongs to
 * (Nix manual, "Nix Archive (NAR) format"): strings with a length of 8 bytes before them,
 * padded to 8, of which only a file's contents may be long.
 */

/** Hears of the regular files of a NAR, one after the other. */
export interface NarVisitor {
  /** A file begins; `path` is relative to the store path, empty if that is the file itself. */
  onFile(path: string): void;
  /** Some of its contents. The bytes are only valid during the call. */
  onContents(piece: Buffer): void;
}

/** No name, target or keyword is longer (PATH_MAX of Linux). */
const MAX_WORD = 4096;
const WORD = 8;

/**
 * Feed it every piece of a NAR in order. It never fails: what is no NAR is not walked any
 * further, since the NAR's hash, which is compared elsewhere, is what proves it right.
 */
export class NarWalker {
  readonly #visitor: NarVisitor;
  /** Bytes of a length or of a short string that has not wholly arrived. */
  #pending: Buffer = Buffer.alloc(0);
  /** Bytes of the current string with its padding; null if a length comes next. */
  #expected: number | null = null;
  #length = 0;
  /** Of a file's contents, still to come: bytes and padding. */
  #contents = 0;
  #padding = 0;
  #keyword = "";
  /** Names of the entries that lead to where we are. */
  readonly #names: string[] = [];
  /** Parentheses that are open: whether each is an entry's, which ends its name. */
  readonly #open: boolean[] = [];
  #lost = false;

  constructor(visitor: NarVisitor) {
    this.#visitor = visitor;
  }

  /** Walks on through the next piece. */
  push(piece: Buffer): void {
    let at = 0;
    while (at < piece.length && !this.#lost) {
      if (this.#contents > 0) {
        const count = Math.min(this.#contents, piece.length - at);
        this.#visitor.onContents(piece.subarray(at, at + count));
        this.#contents -= count;
        at += count;
      } else if (this.#padding > 0) {
        const count = Math.min(this.#padding, piece.length - at);
        this.#padding -= count;
        at += count;
      } else {
        at += this.#takeShort(piece, at);
      }
    }
  }

  /** Takes of a length or a short string; gives how many bytes. */
  #takeShort(piece: Buffer, at: number): number {
    const wanted = this.#expected ?? WORD;
    if (this.#pending.length === 0 && piece.length - at >= wanted) {
      this.#takeWord(piece.subarray(at, at + wanted));
      return wanted;
    }
    const count = Math.min(wanted - this.#pending.length, piece.length - at);
    this.#pending = Buffer.concat([this.#pending, piece.subarray(at, at + count)]);
    if (this.#pending.length === wanted) {
      const word = this.#pending;
      this.#pending = Buffer.alloc(0);
      this.#takeWord(word);
    }
    return count;
  }

  #takeWord(bytes: Buffer): void {
    if (this.#expected === null) {
      this.#takeLength(Number(bytes.readBigUInt64LE()));
      return;
    }
    this.#expected = null;
    this.#takeString(bytes.toString("utf8", 0, this.#length));
  }

  #takeLength(length: number): void {
    const padding = (WORD - (length % WORD)) % WORD;
    if (this.#keyword === "contents") {
      this.#keyword = "";
      this.#contents = length;
      this.#padding = padding;
      this.#visitor.onFile(this.#names.join("/"));
    } else if (length > MAX_WORD) {
      this.#lost = true;
    } else if (length === 0) {
      this.#takeString("");
    } else {
      this.#length = length;
      this.#expected = length + padding;
    }
  }

  /** Where a keyword takes a string, the string; otherwise a keyword or a parenthesis. */
  #takeString(text: string): void {
    const before = this.#keyword;
    this.#keyword = "";
    if (before === "name") this.#names.push(text);
    else if (before === "target" || before === "type") return;
    else if (text === "(") this.#open.push(before === "entry");
    else if (text !== ")") this.#keyword = text;
    else if (this.#open.pop() === true) this.#names.pop();
  }
}

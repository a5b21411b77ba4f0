import { lstatSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { streamProcess, type StreamOptions } from "../process/subprocess.ts";

/** Up to this size, reading a NAR here is faster than starting a process. */
const SMALL_BYTES = 1024 * 1024;

/**
 * Gives `consume` the NAR of a file, link or directory, as it is now. A small NAR is read at once;
 * a larger one comes from `nix-store --dump`. Throws what `streamProcess` throws, and the operating
 * system's errors.
 */
export async function withNar<T>(
  path: string,
  options: StreamOptions,
  consume: (nar: AsyncIterable<Buffer>) => Promise<T>,
): Promise<T> {
  const small = dumpNar(path, SMALL_BYTES);
  if (!small) return streamProcess("nix-store", ["--dump", path], options, consume);
  return consume(
    (async function* () {
      yield small;
    })(),
  );
}

/**
 * The NAR of a file, link or directory, as `nix-store --dump` writes it (Nix manual, "Nix
 * Archive (NAR) format"), or null if it is larger than `limit` bytes. It is held in memory. The
 * caller compares its hash with the one that Nix recorded. Throws the operating system's errors.
 */
export function dumpNar(path: string, limit: number): Buffer | null {
  const dump = new Dump(limit);
  dump.add(word("nix-archive-1"));
  dump.addNode(Buffer.from(path));
  return dump.finish();
}

const SEPARATOR = Buffer.from("/");

class Dump {
  readonly #pieces: Buffer[] = [];
  #left: number;

  constructor(limit: number) {
    this.#left = limit;
  }

  finish(): Buffer | null {
    return this.#left < 0 ? null : Buffer.concat(this.#pieces);
  }

  add(...pieces: readonly Buffer[]): void {
    for (const piece of pieces) {
      this.#left -= piece.length;
      this.#pieces.push(piece);
    }
  }

  /** Names and link targets are bytes: on Linux they need not be UTF-8. */
  addNode(path: Buffer): void {
    const found = lstatSync(path);
    this.add(OPEN, TYPE);
    if (found.isDirectory()) {
      this.add(DIRECTORY);
      const names = readdirSync(path, { encoding: "buffer" });
      for (const name of names.sort((a, b) => Buffer.compare(a, b))) {
        if (this.#left < 0) return;
        this.add(ENTRY, OPEN, NAME, word(name), NODE);
        this.addNode(Buffer.concat([path, SEPARATOR, name]));
        this.add(CLOSE);
      }
    } else if (found.isSymbolicLink()) {
      this.add(SYMLINK, TARGET, word(readlinkSync(path, { encoding: "buffer" })));
    } else if (found.isFile()) {
      this.add(REGULAR);
      // Nix looks at the owner's bit alone (S_IXUSR).
      if (found.mode & 0o100) this.add(EXECUTABLE, word(""));
      this.add(CONTENTS);
      // A file above the limit is not read at all.
      if (found.size > this.#left) this.#left = -1;
      else this.add(word(readFileSync(path)));
    } else {
      throw new Error(`${path.toString()}: expected a file, a directory or a link`);
    }
    this.add(CLOSE);
  }
}

const LENGTH = 8;

/** A string of the format: its length, its bytes, and zeros up to a multiple of 8 bytes. */
function word(contents: string | Buffer): Buffer {
  const bytes = Buffer.from(contents);
  const padding = (LENGTH - (bytes.length % LENGTH)) % LENGTH;
  const framed = Buffer.alloc(LENGTH + bytes.length + padding);
  framed.writeBigUInt64LE(BigInt(bytes.length));
  bytes.copy(framed, LENGTH);
  return framed;
}

const OPEN = word("(");
const CLOSE = word(")");
const TYPE = word("type");
const REGULAR = word("regular");
const EXECUTABLE = word("executable");
const CONTENTS = word("contents");
const DIRECTORY = word("directory");
const ENTRY = word("entry");
const NAME = word("name");
const NODE = word("node");
const SYMLINK = word("symlink");
const TARGET = word("target");

import { lstatSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { streamProcess, type StreamOptions } from "../process/subprocess.ts";

/** A NAR of at most so many bytes is sooner read here than by a process of its own. */
const SMALL_BYTES = 1024 * 1024;

/**
 * Gives `consume` the NAR of a file, link or directory, as it is now. What is small is read
 * at once; the rest comes from `nix-store --dump`. Throws as `streamProcess`, and what the
 * file system throws.
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
 * Archive (NAR) format"), or null where it is larger than `limit` bytes. It is held in
 * memory; whoever calls compares its hash with what Nix has recorded. Throws what the file
 * system throws.
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

  /** Names and targets are bytes: on Linux they need not be text. */
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
      // For the owner, whatever the others may do (S_IXUSR).
      if (found.mode & 0o100) this.add(EXECUTABLE, word(""));
      this.add(CONTENTS);
      // Not read for nothing.
      if (found.size > this.#left) this.#left = -1;
      else this.add(word(readFileSync(path)));
    } else {
      throw new Error(`${path.toString()}: expected a file, a directory or a link`);
    }
    this.add(CLOSE);
  }
}

const LENGTH = 8;

/** A string with its length before it, padded to a multiple of 8 bytes. */
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

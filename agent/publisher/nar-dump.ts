import { lstatSync, readFileSync, readdirSync, readlinkSync } from "node:fs";

/**
 * The NAR of a file, link or directory, as `nix-store --dump` writes it (Nix manual, "Nix
 * Archive (NAR) format"), held in memory: for small paths, for which a process of its own
 * takes longer than its work. Whoever calls compares its hash with what Nix has recorded.
 * Throws what the file system throws.
 */
export function dumpNar(path: string): Buffer {
  const pieces = [word("nix-archive-1")];
  dumpNode(Buffer.from(path), pieces);
  return Buffer.concat(pieces);
}

const SEPARATOR = Buffer.from("/");

/** Names and targets are bytes: on Linux they need not be text. */
function dumpNode(path: Buffer, pieces: Buffer[]): void {
  const found = lstatSync(path);
  pieces.push(OPEN, TYPE);
  if (found.isDirectory()) {
    pieces.push(DIRECTORY);
    const names = readdirSync(path, { encoding: "buffer" });
    for (const name of names.sort((a, b) => Buffer.compare(a, b))) {
      pieces.push(ENTRY, OPEN, NAME, word(name), NODE);
      dumpNode(Buffer.concat([path, SEPARATOR, name]), pieces);
      pieces.push(CLOSE);
    }
  } else if (found.isSymbolicLink()) {
    pieces.push(SYMLINK, TARGET, word(readlinkSync(path, { encoding: "buffer" })));
  } else {
    if (!found.isFile()) throw new Error(`${path.toString()}: expected a file, directory or link`);
    pieces.push(REGULAR);
    // For the owner, whatever the others may do (S_IXUSR).
    if (found.mode & 0o100) pieces.push(EXECUTABLE, word(""));
    pieces.push(CONTENTS, word(readFileSync(path)));
  }
  pieces.push(CLOSE);
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

const [OPEN, CLOSE, TYPE, REGULAR, EXECUTABLE, CONTENTS] = [
  word("("),
  word(")"),
  word("type"),
  word("regular"),
  word("executable"),
  word("contents"),
] as const;
const [DIRECTORY, ENTRY, NAME, NODE, SYMLINK, TARGET] = [
  word("directory"),
  word("entry"),
  word("name"),
  word("node"),
  word("symlink"),
  word("target"),
] as const;

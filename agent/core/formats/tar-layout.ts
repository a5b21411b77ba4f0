/**
 * The bytes of a closure archive around its contents. An archive is fully determined
 * by its index: every header, every padding byte and every offset can be computed, so
 * a reader compares instead of parsing, and nothing that a hostile tar could say
 * (links, `..`, long names, huge headers) is ever interpreted.
 */

export const TAR_BLOCK = 512;

/** Two zero blocks end an archive (POSIX.1-2017, pax, "ustar Interchange Format"). */
export const TAR_TRAILER = 2 * TAR_BLOCK;

/** Largest size that a ustar header's 11 octal digits can say; larger ones are base-256. */
const MAX_OCTAL_SIZE = 0o77777777777;

/** `size` rounded up to whole blocks. */
export function paddedSize(size: number): number {
  return Math.ceil(size / TAR_BLOCK) * TAR_BLOCK;
}

function octal(value: number, digits: number): string {
  return value.toString(8).padStart(digits, "0");
}

/**
 * The ustar header of a plain file: mode 0644, owner and group 0, time 0. Byte for
 * byte what tar-stream's `pack` writes for such an entry. `name` is ASCII, at most
 * 100 bytes; `size` is in bytes.
 */
export function tarHeader(name: string, size: number): Buffer {
  const block = Buffer.alloc(TAR_BLOCK);
  block.write(name, 0, 100, "latin1");
  block.write(`${octal(0o644, 6)} \0`, 100, "latin1");
  block.write(`${octal(0, 6)} \0`, 108, "latin1");
  block.write(`${octal(0, 6)} \0`, 116, "latin1");
  if (size <= MAX_OCTAL_SIZE) {
    block.write(`${octal(size, 11)} `, 124, "latin1");
  } else {
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(size), 128);
  }
  block.write(`${octal(0, 11)} `, 136, "latin1");
  block.write("0", 156, "latin1");
  block.write("ustar\0", 257, "latin1");
  block.write("00", 263, "latin1");
  block.write(`${octal(0, 6)} \0`, 329, "latin1");
  block.write(`${octal(0, 6)} \0`, 337, "latin1");
  // The checksum is taken with its own field as spaces.
  let sum = 8 * 0x20;
  for (const byte of block) sum += byte;
  block.write(`${octal(sum, 6)} \0`, 148, "latin1");
  return block;
}

const TYPES: Record<string, string> = {
  "0": "file",
  "\0": "file",
  "1": "hard link",
  "2": "symbolic link",
  "3": "character device",
  "4": "block device",
  "5": "directory",
  "6": "FIFO",
  x: "pax header",
  g: "global pax header",
  L: "GNU long name",
  K: "GNU long link",
};

/**
 * Words for a header that is not the expected one, for error messages. They say which kind it is
 * and repeat nothing of it: it may be a part of something else that was not meant to be told.
 */
export function describeTarHeader(block: Uint8Array): string {
  const header = Buffer.from(block);
  if (header.every((byte) => byte === 0)) return "the end of the archive";
  if (header.toString("latin1", 257, 262) !== "ustar") return "bytes that are no tar header";
  const type = TYPES[header.toString("latin1", 156, 157)] ?? "unknown type";
  return `another header (${type})`;
}

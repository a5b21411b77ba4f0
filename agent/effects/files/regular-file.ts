import { constants, open, type FileHandle } from "node:fs/promises";
import { PullError, type ErrorCode } from "../../core/errors.ts";
import { hasErrorCode } from "./missing-file.ts";

/** How a file is opened that somebody else may have put there. */
export interface OpenOptions {
  /** Code of the error that is thrown if something else than the expected file is found. */
  readonly code: ErrorCode;
  /** Flags of open(2); to read, if absent. */
  readonly flags?: number;
  /** Mode of a file that is created. */
  readonly mode?: number;
  /** Follow a symbolic link in the path's last component. Refused if absent. */
  readonly followLink?: boolean;
  /** Refuse a file with other names (hard links): whoever has those could change it. */
  readonly onlyName?: boolean;
}

/** How such a file is read. */
export interface ReadOptions extends OpenOptions {
  readonly maxBytes: number;
}

/**
 * Opens a regular file, and nothing else: a FIFO would be waited for for ever, and a link may lead
 * anywhere. Whoever calls closes it. Throws `code`, and the operating system's errors, also for a
 * file that does not exist.
 */
export async function openRegularFile(path: string, options: OpenOptions): Promise<FileHandle> {
  const expected = options.onlyName
    ? "a regular file with only this name"
    : options.followLink
      ? "a regular file"
      : "a regular file and no link";
  const unexpected = (found: string, cause?: unknown): PullError =>
    new PullError(options.code, `${path}: expected ${expected}, found ${found}`, { cause });
  const flags =
    (options.flags ?? constants.O_RDONLY) |
    constants.O_NONBLOCK |
    (options.followLink ? 0 : constants.O_NOFOLLOW);
  const file = await open(path, flags, options.mode).catch((error: unknown) => {
    if (hasErrorCode(error, "ELOOP")) throw unexpected("a symbolic link", error);
    // A socket, a FIFO that nobody reads (open(2), ENXIO), a directory that should be written.
    if (hasErrorCode(error, "ENXIO", "EISDIR")) throw unexpected("something else", error);
    throw error;
  });
  try {
    const found = await file.stat();
    if (!found.isFile()) {
      throw unexpected(
        found.isDirectory() ? "a directory" : found.isFIFO() ? "a FIFO" : "a device",
      );
    }
    if (options.onlyName && found.nlink !== 1) throw unexpected(`one with ${found.nlink} names`);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Reads an open file from its start, at most `maxBytes`; `name` is its name in messages. Throws
 * `code` if it is larger, also if it grows meanwhile, and the operating system's errors.
 */
export async function readOpenFile(
  file: FileHandle,
  { name, maxBytes, code }: { name: string; maxBytes: number; code: ErrorCode },
): Promise<Buffer> {
  const tooLarge = (found: string): PullError =>
    new PullError(code, `${name}: expected at most ${maxBytes} bytes, found ${found}`);
  const { size } = await file.stat();
  if (size > maxBytes) throw tooLarge(String(size));
  // Into one buffer, at least as long as the file was, and grown if the file grows.
  let bytes = Buffer.allocUnsafeSlow(Math.min(size, maxBytes) + 1);
  for (let at = 0; ;) {
    const { bytesRead } = await file.read(bytes, at, bytes.length - at, at);
    if (bytesRead === 0) return bytes.subarray(0, at);
    at += bytesRead;
    if (at > maxBytes) throw tooLarge("more");
    if (at === bytes.length) {
      bytes = Buffer.concat([bytes], Math.min(2 * bytes.length, maxBytes) + 1);
    }
  }
}

/**
 * Reads a regular file that somebody else may have put there, at most `maxBytes`. Throws `code`
 * for anything else or more, and the operating system's errors, also for a file that does not
 * exist.
 */
export async function readRegularFile(path: string, options: ReadOptions): Promise<Buffer> {
  const file = await openRegularFile(path, options);
  try {
    return await readOpenFile(file, { ...options, name: path });
  } finally {
    await file.close();
  }
}

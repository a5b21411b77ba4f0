import type { FileHandle } from "node:fs/promises";
import type { ByteRange } from "../../core/formats/byte-ranges.ts";
import { PullError } from "../../core/errors.ts";

const READ_SIZE = 256 * 1024;

/** A range of an open file, in pieces; less if the file ends early. Throws INTERRUPTED. */
export async function* readBytes(
  file: FileHandle,
  { from, to }: ByteRange,
  signal?: AbortSignal,
): AsyncGenerator<Buffer> {
  let at = from;
  while (at < to) {
    if (signal?.aborted) throw new PullError("INTERRUPTED", "stopped while reading the archive");
    const buffer = Buffer.allocUnsafe(Math.min(READ_SIZE, to - at));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

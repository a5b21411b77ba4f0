import type { FileHandle } from "node:fs/promises";
import type { ByteRange } from "../../core/formats/byte-ranges.ts";
import { PullError } from "../../core/errors.ts";
import {
  MAX_THIN_HEADER_BYTES,
  parseThinHeader,
  placeInThin,
  type ThinHeader,
} from "../../core/formats/thin-archive.ts";
import { readBytes } from "../files/file-bytes.ts";

const LINE_STEP = 64 * 1024;

/** An open `archives/SHA256.thin`: a part of an archive. The caller opens and closes the file. */
export class ThinFile {
  readonly header: ThinHeader;
  readonly #file: FileHandle;
  readonly #name: string;
  /** Length of the first line, newline included. */
  readonly #start: number;

  private constructor(file: FileHandle, name: string, header: ThinHeader, start: number) {
    this.#file = file;
    this.#name = name;
    this.header = header;
    this.#start = start;
  }

  /** Reads the first line. Throws ARCHIVE_CORRUPT, ARCHIVE_TRUNCATED. */
  static async from(file: FileHandle, name: string): Promise<ThinFile> {
    const parts: Buffer[] = [];
    let length = 0;
    while (length < MAX_THIN_HEADER_BYTES) {
      const buffer = Buffer.alloc(LINE_STEP);
      const { bytesRead } = await file.read(buffer, 0, LINE_STEP, length);
      if (bytesRead === 0) break;
      const part = buffer.subarray(0, bytesRead);
      const end = part.indexOf("\n");
      if (end !== -1) {
        const line = Buffer.concat([...parts, part.subarray(0, end)]);
        return new ThinFile(file, name, parseThinHeader(line, name), line.length + 1);
      }
      parts.push(part);
      length += bytesRead;
    }
    throw new PullError(
      "ARCHIVE_TRUNCATED",
      `${name}: expected a first line of at most ${MAX_THIN_HEADER_BYTES} bytes`,
    );
  }

  /** Bytes of the archive, in pieces. Throws ARCHIVE_PARTIAL if the file does not have them. */
  async *read(range: ByteRange, signal?: AbortSignal): AsyncGenerator<Buffer> {
    const place = placeInThin(this.header, range);
    if (place === null) {
      throw new PullError(
        "ARCHIVE_PARTIAL",
        `${this.#name}: this stick has only a part of the archive, without bytes ${range.from} to ` +
          `${range.to}; it was made for hosts that have the rest`,
      );
    }
    const from = this.#start + place;
    yield* readBytes(this.#file, { from, to: from + range.to - range.from }, signal);
  }
}

import * as z from "zod";
import type { ByteRange } from "./byte-ranges.ts";
import { findCovering } from "./byte-ranges.ts";
import { PullError } from "../errors.ts";

/**
 * A part of an archive in a file of its own, `archives/SHA256.thin`: one line of JSON
 * that says which bytes of the archive it has, and then these bytes. Unlike a file with
 * holes it is as small on a FAT stick, survives every copy, and is never taken for the
 * whole archive.
 */
export const THIN_FORMAT_VERSION = 1;

/** Longest first line that is read. */
export const MAX_THIN_HEADER_BYTES = 8 * 1024 * 1024;

const offsetSchema = z.int().nonnegative();

/** Hosts read sticks of later tools, too: a key that is not known is ignored. */
const thinHeaderSchema = z
  .object({
    formatVersion: z.literal(THIN_FORMAT_VERSION),
    /** Size of the whole archive. */
    size: z.int().positive(),
    /** Which bytes follow, each `[from, to)`, ascending and apart. */
    ranges: z.array(z.tuple([offsetSchema, offsetSchema])).max(400_000),
  })
  .refine(
    ({ size, ranges }) => {
      let end = -1;
      for (const [from, to] of ranges) {
        if (from <= end || to <= from) return false;
        end = to;
      }
      return end <= size;
    },
    { error: "expected ascending ranges within the archive" },
  );

/** Names and positions of this format, and nobody's own. */
const KNOWN_PART = /^(formatVersion|size|ranges(\.\d+){0,2})$/;

/** What a thin archive has of its archive. */
export interface ThinHeader {
  readonly size: number;
  readonly ranges: readonly ByteRange[];
}

/** The first line of a thin archive, newline included. `ranges` are joined ones. */
export function encodeThinHeader({ size, ranges }: ThinHeader): Buffer {
  const header: z.input<typeof thinHeaderSchema> = {
    formatVersion: THIN_FORMAT_VERSION,
    size,
    ranges: ranges.map(({ from, to }) => [from, to]),
  };
  return Buffer.from(`${JSON.stringify(header)}\n`);
}

/** Parses the first line, without its newline. Throws ARCHIVE_CORRUPT. */
export function parseThinHeader(line: Uint8Array, name: string): ThinHeader {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(line).toString("utf8"));
  } catch {
    // Neither the reason nor the schema's issues are told: they would repeat what is there.
    throw new PullError("ARCHIVE_CORRUPT", `${name}: expected a line of JSON first`);
  }
  const parsed = thinHeaderSchema.safeParse(json);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const part = issue?.path.slice(0, 3).join(".") ?? "";
    throw new PullError(
      "ARCHIVE_CORRUPT",
      `${name}: expected the first line of a thin archive; wrong: ` +
        (KNOWN_PART.test(part) ? part : "its form"),
    );
  }
  const { size, ranges } = parsed.data;
  return { size, ranges: ranges.map(([from, to]) => ({ from, to })) };
}

/** Where the bytes of `range` begin, counted from the end of the first line, or null. */
export function placeInThin({ ranges }: ThinHeader, range: ByteRange): number | null {
  const found = findCovering(ranges, range);
  if (found === -1) return null;
  let place = 0;
  for (const { from, to } of ranges.slice(0, found)) place += to - from;
  return place + range.from - (ranges[found]?.from ?? 0);
}

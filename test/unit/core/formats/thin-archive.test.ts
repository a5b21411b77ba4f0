import { expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import {
  encodeThinHeader,
  parseThinHeader,
  placeInThin,
  type ThinHeader,
} from "../../../../agent/core/formats/thin-archive.ts";

const HEADER: ThinHeader = {
  size: 5_000,
  ranges: [
    { from: 0, to: 1_024 },
    { from: 2_048, to: 3_072 },
  ],
};

const lineOf = (json: unknown): Buffer => Buffer.from(JSON.stringify(json));

test("the first line says what was written", () => {
  const line = encodeThinHeader(HEADER);
  expect(line.at(-1)).toBe(10);
  expect(parseThinHeader(line.subarray(0, -1), "a")).toEqual(HEADER);
});

test("a range lies behind those before it, and only where it is whole", () => {
  expect(placeInThin(HEADER, { from: 512, to: 1_024 })).toBe(512);
  expect(placeInThin(HEADER, { from: 2_048, to: 3_072 })).toBe(1_024);
  expect(placeInThin(HEADER, { from: 2_560, to: 3_000 })).toBe(1_536);
  expect(placeInThin(HEADER, { from: 1_000, to: 1_025 })).toBeNull();
  expect(placeInThin(HEADER, { from: 0, to: 5_000 })).toBeNull();
});

test.each([
  ["no JSON", Buffer.from("{")],
  ["another version", lineOf({ formatVersion: 2, size: 10, ranges: [] })],
  ["an unknown key", lineOf({ formatVersion: 1, size: 10, ranges: [], more: 1 })],
  ["a range beyond the archive", lineOf({ formatVersion: 1, size: 10, ranges: [[0, 11]] })],
  ["an empty range", lineOf({ formatVersion: 1, size: 10, ranges: [[4, 4]] })],
  [
    "ranges out of order",
    lineOf({
      formatVersion: 1,
      size: 10,
      ranges: [
        [4, 6],
        [0, 2],
      ],
    }),
  ],
  [
    "ranges that overlap",
    lineOf({
      formatVersion: 1,
      size: 10,
      ranges: [
        [0, 6],
        [4, 8],
      ],
    }),
  ],
])("%s is refused", (_, line) => {
  const parse = (): unknown => parseThinHeader(line, "a");
  expect(parse).toThrow(expect.objectContaining({ code: "ARCHIVE_CORRUPT" }) as PullError);
});

import { expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import {
  MAX_THIN_HEADER_BYTES,
  encodeThinHeader,
  parseThinHeader,
  placeInThin,
  type ThinHeader,
} from "../../../../agent/core/formats/thin-archive.ts";
import { failureOf } from "../../../support/failure.ts";

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

test("a header may name no range, the whole archive, or ranges with one byte between them", () => {
  const ranges = [
    [],
    [[0, 10]],
    [
      [0, 1],
      [2, 10],
    ],
    [[9, 10]],
  ] as [number, number][][];
  for (const some of ranges) {
    const header = parseThinHeader(lineOf({ formatVersion: 1, size: 10, ranges: some }), "a");
    expect(header).toEqual({ size: 10, ranges: some.map(([from, to]) => ({ from, to })) });
  }
});

test.each([
  [
    "ranges that touch",
    {
      ranges: [
        [0, 4],
        [4, 6],
      ],
    },
  ],
  ["a range that ends before it begins", { ranges: [[4, 2]] }],
  ["a range before the archive", { ranges: [[-1, 2]] }],
  ["a range of halves", { ranges: [[0.5, 2]] }],
  ["a range of three numbers", { ranges: [[0, 1, 2]] }],
  ["a size of nothing", { size: 0 }],
  ["a size of halves", { size: 1.5 }],
])("%s is refused", (_, changes) => {
  const line = lineOf({ formatVersion: 1, size: 10, ranges: [], ...changes });
  expect(failureOf(() => parseThinHeader(line, "a")).code).toBe("ARCHIVE_CORRUPT");
});

test("a refusal names the file, and what is wrong in it", () => {
  const noJson = failureOf(() => parseThinHeader(Buffer.from("{"), "x.thin"));
  expect(noJson.message).toBe("x.thin: expected a line of JSON first");
  const beyond = lineOf({ formatVersion: 1, size: 10, ranges: [[0, 11]] });
  expect(failureOf(() => parseThinHeader(beyond, "x.thin")).message).toBe(
    "x.thin: expected the first line of a thin archive; wrong: its form",
  );
  const half = lineOf({ formatVersion: 1, size: 10, ranges: [[0, 0.5]] });
  expect(failureOf(() => parseThinHeader(half, "x.thin")).message).toContain("wrong: ranges.0.1");
});

test("a place is counted over every range before it", () => {
  const header: ThinHeader = {
    ...{ size: 100 },
    ranges: [0, 20, 40].map((from) => ({ from, to: from + 5 })),
  };
  expect(placeInThin(header, { from: 41, to: 45 })).toBe(11);
  expect(placeInThin(header, { from: 0, to: 5 })).toBe(0);
  expect(placeInThin(header, { from: 10, to: 12 })).toBeNull();
});

test("the first line may be as long as that of 400,000 ranges", () => {
  expect(MAX_THIN_HEADER_BYTES).toBe(8_388_608);
});

test("a key of a later version's first line is ignored", () => {
  const line = lineOf({ formatVersion: 1, size: 10, ranges: [[0, 4]], later: { a: 1 } });
  expect(parseThinHeader(line, "a")).toEqual({ size: 10, ranges: [{ from: 0, to: 4 }] });
});

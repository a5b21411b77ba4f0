import fc from "fast-check";
import { expect, test } from "vitest";
import {
  bytesInRanges,
  covers,
  findCovering,
  joinRanges,
  splitRange,
  type ByteRange,
} from "../../../../agent/core/formats/byte-ranges.ts";

const range = fc
  .tuple(fc.nat(60), fc.nat(20))
  .map(([from, length]): ByteRange => ({ from, to: from + length }));
const ranges = fc.array(range, { maxLength: 8 });

/** The bytes themselves, which is what ranges stand for. */
function bytesOf(some: readonly ByteRange[]): Set<number> {
  return new Set(
    some.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, at) => from + at)),
  );
}

test("joined ranges are the same bytes, ascending and apart", () => {
  fc.assert(
    fc.property(ranges, (some) => {
      const joined = joinRanges(some);
      expect(bytesOf(joined)).toEqual(bytesOf(some));
      expect(bytesInRanges(joined)).toBe(bytesOf(some).size);
      for (const [at, { from }] of joined.entries()) {
        expect(from).toBeGreaterThan(joined[at - 1]?.to ?? -1);
      }
    }),
  );
});

test("a gap is filled where it is small enough, and nothing else is added", () => {
  const apart = [
    { from: 0, to: 4 },
    { from: 6, to: 8 },
    { from: 11, to: 12 },
  ];
  expect(joinRanges(apart, 2)).toEqual([
    { from: 0, to: 8 },
    { from: 11, to: 12 },
  ]);
});

test("a range is covered where all its bytes are", () => {
  fc.assert(
    fc.property(ranges, range, (some, wanted) => {
      fc.pre(wanted.to > wanted.from);
      const have = bytesOf(some);
      const all = [...bytesOf([wanted])].every((byte) => have.has(byte));
      expect(covers(joinRanges(some), wanted)).toBe(all);
    }),
  );
});

test("a split range is whole again in order, and each piece inside or outside", () => {
  fc.assert(
    fc.property(ranges, range, (some, wanted) => {
      const joined = joinRanges(some);
      const have = bytesOf(some);
      const pieces = splitRange(wanted, joined);
      let at = wanted.from;
      for (const { from, to, inside } of pieces) {
        expect(from).toBe(at);
        at = to;
        for (const byte of bytesOf([{ from, to }])) expect(have.has(byte)).toBe(inside);
      }
      if (wanted.to > wanted.from) expect(at).toBe(wanted.to);
    }),
  );
});

test("empty ranges are no ranges", () => {
  const empty = { from: 3, to: 3 };
  expect(joinRanges([empty])).toEqual([]);
  expect(joinRanges([{ from: 5, to: 9 }, empty])).toEqual([{ from: 5, to: 9 }]);
});

test("the range that covers another is found at its position", () => {
  const joined = [0, 10, 20, 30].map((from) => ({ from, to: from + 5 }));
  for (const [at, { from, to }] of joined.entries()) {
    expect(findCovering(joined, { from, to })).toBe(at);
    expect(findCovering(joined, { from: from + 1, to: to - 1 })).toBe(at);
    expect(findCovering(joined, { from, to: to + 1 })).toBe(-1);
  }
  expect(findCovering([], { from: 0, to: 1 })).toBe(-1);
});

test("no piece of a split range is empty, and what touches it is not in it", () => {
  const joined = [0, 10, 20].map((from) => ({ from, to: from + 5 }));
  const split = (from: number, to: number) =>
    splitRange({ from, to }, joined).map((it) => [it.from, it.to, it.inside]);
  expect(split(5, 10)).toEqual([[5, 10, false]]);
  expect(split(5, 11)).toEqual([
    [5, 10, false],
    [10, 11, true],
  ]);
  expect(split(10, 20)).toEqual([
    [10, 15, true],
    [15, 20, false],
  ]);
  expect(split(10, 15)).toEqual([[10, 15, true]]);
  expect(split(24, 30)).toEqual([
    [24, 25, true],
    [25, 30, false],
  ]);
});

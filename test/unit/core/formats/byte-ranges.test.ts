import fc from "fast-check";
import { expect, test } from "vitest";
import {
  bytesInRanges,
  covers,
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

import fc from "fast-check";
import { expect, test } from "vitest";
import { rewriteHashes } from "../../../../agent/core/transfer/hash-rewriter.ts";

const DIGITS = "0123456789abcdfghijklmnpqrsvwxyz";
const hash = fc
  .array(fc.constantFrom(...Array.from(DIGITS)), { minLength: 32, maxLength: 32 })
  .map((digits) => digits.join(""));

async function rewritten(
  bytes: Buffer,
  replacements: ReadonlyMap<string, string>,
  size: number,
): Promise<Buffer> {
  const pieces = (async function* () {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
  })();
  const out: Buffer[] = [];
  for await (const piece of rewriteHashes(pieces, replacements)) out.push(Buffer.from(piece));
  return Buffer.concat(out);
}

test("every hash is replaced wherever pieces begin, and nothing else is", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(hash, { minLength: 2, maxLength: 6 }),
      fc.array(fc.oneof(fc.nat({ max: 5 }), fc.string({ maxLength: 50 })), { maxLength: 12 }),
      fc.integer({ min: 1, max: 100 }),
      async (hashes, parts, size) => {
        const from = hashes.slice(0, Math.floor(hashes.length / 2));
        const to = hashes.slice(Math.floor(hashes.length / 2));
        const replacements = new Map(from.map((old, at) => [old, to[at] ?? ""]));
        // A separator that is no digit keeps text from running into a hash.
        const text = (replace: boolean): string =>
          parts
            .map((part) => {
              if (typeof part === "string") return part.replace(/[0-9a-z]/g, "E");
              const one = hashes[part % hashes.length] ?? "";
              return replace ? (replacements.get(one) ?? one) : one;
            })
            .join("/");
        const found = await rewritten(Buffer.from(text(false)), replacements, size);
        expect(found.toString()).toBe(Buffer.from(text(true)).toString());
      },
    ),
    { numRuns: 100 },
  );
});

test("a hash in the middle of a longer row of digits is found", async () => {
  const [old, fresh] = ["0".repeat(31) + "1", "z".repeat(32)];
  const bytes = Buffer.from(`aaa${old}bbb`);
  const found = await rewritten(bytes, new Map([[old, fresh]]), 7);
  expect(found.toString()).toBe(`aaa${fresh}bbb`);
});

test("without replacements everything passes as it is", async () => {
  const bytes = Buffer.from(DIGITS.repeat(5));
  expect((await rewritten(bytes, new Map(), 9)).equals(bytes)).toBe(true);
});

test("what is put in is not looked at again", async () => {
  const [a, b] = ["a".repeat(32), "b".repeat(32)];
  const swap = new Map([
    [a, b],
    [b, a],
  ]);
  const found = await rewritten(Buffer.from(`${a}${b}/${b}`), swap, 50);
  expect(found.toString()).toBe(`${b}${a}/${a}`);
});

test("a row of 32 digits at the very end is found; one of 31 is none", async () => {
  const [old, fresh] = ["0".repeat(32), "z".repeat(32)];
  for (const size of [1, 31, 32, 33, 100]) {
    const replacements = new Map([[old, fresh]]);
    expect((await rewritten(Buffer.from(`-${old}`), replacements, size)).toString()).toBe(
      `-${fresh}`,
    );
    const short = Buffer.from(`-${old.slice(1)}`);
    expect((await rewritten(short, replacements, size)).equals(short)).toBe(true);
  }
});

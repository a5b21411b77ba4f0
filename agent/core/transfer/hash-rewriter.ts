import { STORE_HASH_DIGITS } from "../formats/store-path.ts";

/** For each byte, whether it is a digit of Nix's base-32. */
const IS_DIGIT = new Uint8Array(256);
for (const digit of STORE_HASH_DIGITS) IS_DIGIT[digit.charCodeAt(0)] = 1;

const LENGTH = 32;

/**
 * Replaces hashes of store paths by others of the same length in a stream of any
 * pieces. Found as Nix finds references: 32 digits in a row, from the left, at whatever
 * place. What is put in is not looked at again.
 */
export async function* rewriteHashes(
  source: AsyncIterable<Uint8Array>,
  replacements: ReadonlyMap<string, string>,
): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const piece of source) {
    const bytes = Buffer.concat([rest, piece]);
    const end = replaceIn(bytes, replacements);
    yield bytes.subarray(0, end);
    rest = bytes.subarray(end);
  }
  if (rest.length > 0) yield rest;
}

/** Replaces in place; gives how many bytes are done with: a hash could begin in the others. */
function replaceIn(bytes: Buffer, replacements: ReadonlyMap<string, string>): number {
  if (replacements.size === 0) return bytes.length;
  let at = 0;
  outer: while (at + LENGTH <= bytes.length) {
    // From the end: most places are ruled out by one look, and passed by many bytes.
    // Stryker disable ConditionalExpression,EqualityOperator,BlockStatement: a shortcut, no more
    for (let digit = LENGTH - 1; digit >= 0; digit--) {
      if (IS_DIGIT[bytes[at + digit] ?? 0] === 0) {
        at += digit + 1;
        continue outer;
      }
    }
    // Stryker restore ConditionalExpression,EqualityOperator,BlockStatement
    const replacement = replacements.get(bytes.toString("latin1", at, at + LENGTH));
    if (replacement === undefined) at++;
    else {
      bytes.write(replacement, at, "latin1");
      at += LENGTH;
    }
  }
  return Math.min(at, bytes.length);
}

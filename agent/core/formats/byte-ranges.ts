/** Bytes `from` up to and not including `to`. */
export interface ByteRange {
  readonly from: number;
  readonly to: number;
}

/**
 * The same bytes as ascending ranges that neither overlap nor touch. Ranges that are at most
 * `gap` apart become one, with the bytes between them.
 */
export function joinRanges(ranges: Iterable<ByteRange>, gap = 0): ByteRange[] {
  const joined: { from: number; to: number }[] = [];
  for (const { from, to } of [...ranges].sort((a, b) => a.from - b.from)) {
    const last = joined.at(-1);
    if (last && from <= last.to + gap) last.to = Math.max(last.to, to);
    else if (to > from) joined.push({ from, to });
  }
  return joined;
}

/** Position in `joined` of the range that holds all of `range`, or -1. */
export function findCovering(joined: readonly ByteRange[], range: ByteRange): number {
  let low = 0;
  let high = joined.length;
  // The last range that begins at or before the wanted one is the only candidate.
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((joined[middle]?.from ?? Infinity) <= range.from) low = middle + 1;
    else high = middle;
  }
  const found = joined[low - 1];
  return found && found.to >= range.to ? low - 1 : -1;
}

export function covers(joined: readonly ByteRange[], range: ByteRange): boolean {
  return findCovering(joined, range) !== -1;
}

/** `range` in pieces, in order, each of which lies in `joined` as a whole or not at all. */
export function splitRange(
  range: ByteRange,
  joined: readonly ByteRange[],
): (ByteRange & { readonly inside: boolean })[] {
  const pieces: (ByteRange & { inside: boolean })[] = [];
  let at = range.from;
  for (const { from, to } of joined) {
    if (to <= at) continue;
    if (from >= range.to) break;
    if (from > at) pieces.push({ from: at, to: from, inside: false });
    const end = Math.min(to, range.to);
    pieces.push({ from: Math.max(from, at), to: end, inside: true });
    at = end;
  }
  if (at < range.to) pieces.push({ from: at, to: range.to, inside: false });
  return pieces;
}

export function bytesInRanges(ranges: readonly ByteRange[]): number {
  return ranges.reduce((sum, { from, to }) => sum + to - from, 0);
}

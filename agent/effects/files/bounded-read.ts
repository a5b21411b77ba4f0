import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Up to this much, pieces are kept as they come. */
const SMALL_BYTES = 1024 * 1024;

/**
 * After so many bytes, pieces that were copied are given back. V8 would let some 60 MB of them
 * pile up, whoever sends them.
 */
const COLLECT_BYTES = 4 * 1024 * 1024;

/**
 * All bytes of a stream, or null if there are more than `maxBytes`; then the stream is ended.
 * Nothing beyond the limit is kept, and nothing is in memory twice. Throws what the stream throws.
 */
export async function readBounded(
  source: AsyncIterable<Uint8Array>,
  maxBytes: number,
): Promise<Buffer | null> {
  let pieces: Uint8Array[] = [];
  let whole: Buffer | null = null;
  let size = 0;
  let uncollected = 0;
  for await (const piece of source) {
    const at = size;
    size += piece.length;
    if (size > maxBytes) return null;
    if (size <= SMALL_BYTES) {
      pieces.push(piece);
      continue;
    }
    if (!whole) {
      // Room for the longest: the system gives memory only for what is written.
      whole = Buffer.allocUnsafeSlow(maxBytes);
      Buffer.concat(pieces).copy(whole);
      pieces = [];
    }
    whole.set(piece, at);
    uncollected += piece.length;
    if (uncollected < COLLECT_BYTES) continue;
    collectYoung();
    uncollected = 0;
  }
  return whole ? whole.subarray(0, size) : Buffer.concat(pieces);
}

let collector: ((options: { type: "minor" }) => unknown) | undefined;

/** Collects young garbage. Node has no other way to ask for it while it runs. */
function collectYoung(): void {
  if (!collector) {
    setFlagsFromString("--expose-gc");
    collector = runInNewContext("gc") as NonNullable<typeof collector>;
  }
  collector({ type: "minor" });
}

/**
 * All bytes of a stream, or null if there are more than `maxBytes`; then the stream is ended.
 * Nothing beyond the limit is kept. Throws what the stream throws.
 */
export async function readBounded(
  source: AsyncIterable<Uint8Array>,
  maxBytes: number,
): Promise<Buffer | null> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of source) {
    size += piece.length;
    if (size > maxBytes) return null;
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

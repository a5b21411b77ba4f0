import { expect, test } from "vitest";
import type { Mirror } from "../../../../agent/core/ports.ts";
import { readCompressedIndex } from "../../../../agent/core/transfer/compressed-index.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { sampleRelease } from "../../../support/sample-release.ts";

const release = sampleRelease();
const { sha256, index } = release.archive;

/** A mirror that gives these bytes; what it was asked for, and whether its stream was closed. */
function mirrorOf(bytes: Buffer) {
  const asked: unknown[] = [];
  const state = { closed: false };
  const mirror: Pick<Mirror, "readArchive"> = {
    async *readArchive(...question) {
      asked.push(question);
      try {
        yield bytes.subarray(0, 10);
        yield bytes.subarray(10);
      } finally {
        state.closed = true;
      }
    },
  };
  return { mirror, asked, state };
}

test("the index is the first member's contents, and nothing after it", async () => {
  const bytes = Buffer.alloc(index.size + 100, "x");
  const { mirror, asked, state } = mirrorOf(bytes);
  const { signal } = new AbortController();
  const read = await readCompressedIndex(mirror, release, signal);
  expect(read.equals(bytes.subarray(0, index.size))).toBe(true);
  expect(asked).toEqual([[sha256, { from: 512, to: 512 + index.size }, signal]]);
  expect(state.closed).toBe(true);
});

test("an index that ends early is ARCHIVE_TRUNCATED, and the stream is closed", async () => {
  const { mirror, state } = mirrorOf(Buffer.alloc(index.size - 1, "x"));
  const { code, message } = await rejectionOf(readCompressedIndex(mirror, release));
  expect(code).toBe("ARCHIVE_TRUNCATED");
  expect(message).toBe("the archive ends 1 bytes before the end of what its index promises");
  expect(state.closed).toBe(true);
});

import { createHash } from "node:crypto";
import type { NarMember } from "../../core/formats/archive-index.ts";
import type { ByteRange } from "../../core/formats/byte-ranges.ts";
import type { Delta } from "../../core/transfer/delta.ts";
import { PullError } from "../../core/errors.ts";
import { planArchive } from "../../core/transfer/fetch-plan.ts";
import { readRun } from "../../core/transfer/run-reader.ts";

/** Reads bytes of one archive, from wherever they are. */
export type ReadRange = (range: ByteRange) => AsyncIterable<Uint8Array>;

/**
 * Verifies NARs and deltas of one archive by their signed hashes, with the headers and
 * padding around the NARs. Throws ARCHIVE_CORRUPT, ARCHIVE_MEMBER, ARCHIVE_TRUNCATED, ….
 */
export async function verifyMembers(
  sha256: string,
  members: readonly NarMember[],
  deltas: readonly Delta[],
  read: ReadRange,
): Promise<void> {
  const wanted = new Map(members.map(({ name }) => [name, 0]));
  // What lies between them may not be here.
  for (const run of planArchive(sha256, members, wanted, { gap: 0, limit: Infinity })) {
    await readRun(run, { sha256: "", size: 0 }, read(run), verifyNar);
  }
  for (const { offset, size, sha256: expected, base } of deltas) {
    await expectHash(read({ from: offset, to: offset + size }), expected, `a delta from ${base}`);
  }
}

/** As `readRun` wants it. */
export async function verifyNar(
  member: NarMember,
  _have: number,
  pieces: AsyncIterable<Uint8Array>,
): Promise<void> {
  const { sha256, storePath } = member.body;
  await expectHash(pieces, sha256, `${member.name} (${storePath})`);
}

async function expectHash(
  pieces: AsyncIterable<Uint8Array>,
  expected: string,
  what: string,
): Promise<void> {
  const hash = createHash("sha256");
  for await (const piece of pieces) hash.update(piece);
  const found = hash.digest("hex");
  if (found === expected) return;
  throw new PullError("ARCHIVE_CORRUPT", `${what}: expected sha256 ${expected}, found ${found}`);
}

import type { NarMember } from "../../core/formats/archive-index.ts";
import type { ByteRange } from "../../core/formats/byte-ranges.ts";
import { PullError } from "../../core/errors.ts";
import { Sha256 } from "../../core/formats/sha256.ts";
import type { Delta } from "../../core/transfer/delta.ts";
import { planArchive } from "../../core/transfer/fetch-plan.ts";
import { readRun } from "../../core/transfer/run-reader.ts";

/** Reads bytes of one archive, from wherever they are. */
export type ReadRange = (range: ByteRange) => AsyncIterable<Uint8Array>;

/** Members of one archive. */
export interface ArchiveMembers {
  /** Names the archive. */
  readonly sha256: string;
  readonly nars: readonly NarMember[];
  readonly deltas: readonly Delta[];
}

/**
 * Verifies NARs and deltas of one archive by their signed hashes, with the headers and
 * padding around the NARs. Throws ARCHIVE_CORRUPT, ARCHIVE_MEMBER, ARCHIVE_TRUNCATED, and what
 * `read` throws.
 */
export async function verifyMembers(
  { sha256, nars, deltas }: ArchiveMembers,
  read: ReadRange,
): Promise<void> {
  const wanted = new Map(nars.map(({ name }) => [name, 0]));
  // The bytes between two members may be missing here, so a run has only adjacent members.
  for (const run of planArchive(sha256, nars, wanted, { gap: 0, limit: Infinity })) {
    await readRun(run, { sha256: "", size: 0 }, read(run), verifyNar);
  }
  for (const { offset, size, sha256: expected, base } of deltas) {
    await expectHash(read({ from: offset, to: offset + size }), expected, `a delta from ${base}`);
  }
}

/** Verifies one NAR, as `readRun` calls it. Throws ARCHIVE_CORRUPT. */
export async function verifyNar(
  member: NarMember,
  _have: number,
  pieces: AsyncIterable<Uint8Array>,
): Promise<void> {
  const { sha256, storePath } = member.body;
  await expectHash(pieces, sha256, `${member.name} (${storePath})`);
}

/** Throws ARCHIVE_CORRUPT, naming `what`, unless these bytes have this sha256. */
export async function expectHash(
  pieces: AsyncIterable<Uint8Array>,
  expected: string,
  what: string,
): Promise<void> {
  const hash = new Sha256();
  await hash.addAll(pieces);
  const found = hash.hex();
  if (found === expected) return;
  throw new PullError("ARCHIVE_CORRUPT", `${what}: expected sha256 ${expected}, found ${found}`);
}

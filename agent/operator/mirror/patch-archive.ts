import { PullError } from "../../core/errors.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import type { ReleasedSystem } from "../../core/formats/manifest.ts";
import type { Mirror } from "../../core/ports.ts";

/** Longest archive of index patches that is read: no release saves as much by patches. */
const MAX_BYTES = 64 * 1024 ** 2;

/** The archives that have patches for the indexes of these systems, each once. */
export function patchArchivesOf(systems: Iterable<ReleasedSystem>): Set<string> {
  const archives = new Set<string>();
  for (const { archive } of systems) {
    for (const patch of archive.index.patches ?? []) archives.add(patch.archive);
  }
  return archives;
}

/**
 * Reads an archive of index patches, whole. Manifests name its hash but not its size. Throws the
 * MIRROR_ errors and ARCHIVE_CORRUPT.
 */
export async function readPatchArchive(
  mirror: Mirror,
  sha256: string,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of mirror.readArchive(sha256, { from: 0, to: MAX_BYTES }, signal)) {
    pieces.push(piece);
  }
  const found = sha256Hex(...pieces);
  if (found === sha256) return Buffer.concat(pieces);
  throw new PullError(
    "ARCHIVE_CORRUPT",
    `index patches: expected an archive with sha256 ${sha256}, found ${found}`,
  );
}

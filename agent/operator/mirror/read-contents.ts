import { readIndex, type ArchiveContents } from "../../core/formats/archive-index.ts";
import type { ArchiveReference, ReleasedSystem } from "../../core/formats/manifest.ts";
import { TAR_BLOCK } from "../../core/formats/tar-layout.ts";
import type { Mirror } from "../../core/ports.ts";

/** Where archives are read from. */
export type ArchiveSource = Pick<Mirror, "readArchive">;

/** The compressed index of an archive that is there, whole or in part; not verified. */
export async function readArchiveIndex(
  source: ArchiveSource,
  { sha256, index }: ArchiveReference,
): Promise<Buffer> {
  const range = { from: TAR_BLOCK, to: TAR_BLOCK + index.size };
  const pieces: Uint8Array[] = [];
  for await (const piece of source.readArchive(sha256, range)) pieces.push(piece);
  return Buffer.concat(pieces);
}

/**
 * What the index of a system's archive says, or null if the archive is gone or damaged. The index
 * has the hash that the manifest gives it; signatures of store paths are not checked.
 */
export async function readContents(
  source: ArchiveSource,
  system: ReleasedSystem,
): Promise<ArchiveContents | null> {
  try {
    return readIndex(await readArchiveIndex(source, system.archive), system, null);
  } catch {
    return null;
  }
}

import type { HostEntry } from "../formats/manifest.ts";
import { TAR_BLOCK } from "../formats/tar-layout.ts";
import type { Mirror } from "../ports.ts";
import { ByteReader } from "./byte-reader.ts";

/**
 * Reads the compressed index of a host's archive. It is not verified. Throws
 * ARCHIVE_TRUNCATED and the mirror's errors.
 */
export async function readCompressedIndex(
  mirror: Pick<Mirror, "readArchive">,
  { archive }: Pick<HostEntry, "archive">,
  signal?: AbortSignal,
): Promise<Buffer> {
  const range = { from: TAR_BLOCK, to: TAR_BLOCK + archive.index.size };
  const reader = new ByteReader(mirror.readArchive(archive.sha256, range, signal));
  try {
    return await reader.take(archive.index.size);
  } finally {
    await reader.close();
  }
}

import type { HostEntry } from "../../core/formats/manifest.ts";
import type { Mirror } from "../../core/ports.ts";
import { TAR_BLOCK } from "../../core/formats/tar-layout.ts";
import { ByteReader } from "../files/byte-reader.ts";

/** The compressed index of a host's archive, not verified. */
export async function readCompressedIndex(
  mirror: Mirror,
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

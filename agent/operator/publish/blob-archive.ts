import { open } from "node:fs/promises";
import type { OtherArchive } from "../../core/formats/archive-index.ts";
import { Sha256 } from "../../core/formats/sha256.ts";
import { TAR_TRAILER, paddedSize, tarHeader } from "../../core/formats/tar-layout.ts";

/**
 * Makes an archive of one member from the file `blob`, at `path`, a new file. The member's
 * contents begin after one tar block.
 */
export async function packBlob(member: string, blob: string, path: string): Promise<OtherArchive> {
  const source = await open(blob, "r");
  const file = await open(path, "wx", 0o644);
  try {
    const { size } = await source.stat();
    const hash = new Sha256();
    const write = async (bytes: Buffer): Promise<void> => {
      hash.add(bytes);
      await file.appendFile(bytes);
    };
    await write(tarHeader(member, size));
    for await (const piece of source.createReadStream({ autoClose: false })) {
      await write(piece as Buffer);
    }
    await write(Buffer.alloc(paddedSize(size) - size + TAR_TRAILER));
    await file.sync();
    return { sha256: hash.hex(), size: hash.size };
  } finally {
    await source.close();
    await file.close();
  }
}

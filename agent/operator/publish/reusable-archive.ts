import { readIndex, type OtherArchive } from "../../core/formats/archive-index.ts";
import type { HostEntry } from "../../core/formats/manifest.ts";
import type { SecretKey } from "../../core/formats/signing-key.ts";
import type { PublishedHost } from "../channel/published-release.ts";
import type { MirrorWriter } from "../mirror/mirror-writer.ts";
import type { NarLibrary } from "./nar-library.ts";
import type { PublishOptions } from "./publish-options.ts";

/** A system's archive, whichever hosts it is for. */
export type PackedSystem = Pick<PublishedHost, "closureSize" | "paths" | "archive" | "reused">;

/**
 * The archive of a retained release that holds this very system, or null. It need not be packed
 * again if all its archives are intact and every store key signed every path.
 */
export async function findReusable(
  writer: MirrorWriter,
  { storeKeys, whole }: PublishOptions,
  toplevel: string,
  library: NarLibrary,
): Promise<PackedSystem | null> {
  for (const { manifest, hosts } of library.releases) {
    for (const [hostname, contents] of hosts) {
      const entry = manifest.hosts[hostname];
      if (entry?.toplevel !== toplevel || (whole && contents.elsewhere.length > 0)) continue;
      const paths = await countSignedPaths(writer, entry, storeKeys);
      const { archive, closureSize } = entry;
      const archives = [archive, ...contents.elsewhere.map((other) => other.archive)];
      if (paths === null || !(await areIntact(writer, archives))) continue;
      return { closureSize, paths, archive, reused: true };
    }
  }
  return null;
}

async function areIntact(
  writer: MirrorWriter,
  archives: readonly OtherArchive[],
): Promise<boolean> {
  for (const archive of archives) {
    if (!(await writer.hasArchive(archive)) || !(await writer.isArchiveWhole(archive))) {
      return false;
    }
  }
  return true;
}

/**
 * How many store paths an entry's archive has; null if one of them lacks a signature by one of
 * these keys, or if the index cannot be read.
 */
export async function countSignedPaths(
  writer: MirrorWriter,
  entry: HostEntry,
  storeKeys: readonly SecretKey[],
): Promise<number | null> {
  try {
    const compressed = await writer.readIndex(entry.archive);
    const indexes = storeKeys.map(({ publicKey }) => readIndex(compressed, entry, [publicKey]));
    return indexes[0]?.narInfos.length ?? null;
  } catch {
    return null;
  }
}

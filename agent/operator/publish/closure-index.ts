import {
  INDEX_FORMAT_VERSION,
  endOfIndex,
  isNarMember,
  layOut,
  ownNarInfosOf,
  type ArchiveIndex,
  type IndexedPath,
  type Member,
  type OtherArchive,
} from "../../core/formats/archive-index.ts";
import { PullError } from "../../core/errors.ts";
import { TAR_BLOCK } from "../../core/formats/tar-layout.ts";
import type { ClosureDeltas, NarPlace, PackableClosure, PackablePath } from "./packable-closure.ts";
import type { PathSigner } from "./path-signer.ts";

/** How a closure's NARs are divided between archives. */
export interface IndexOptions {
  readonly signer: PathSigner;
  /** The archive in which a NAR lies or will lie; null for the closure's own. */
  readonly placeOf?: (path: PackablePath) => NarPlace | null;
  /** What the index says about older releases, and the archive of all deltas. */
  readonly deltas?: (ClosureDeltas & { readonly archive: OtherArchive }) | undefined;
  /** The age of another archive: smaller is older. They are listed oldest first. */
  readonly ageOf?: (sha256: string) => number;
}

/**
 * The index of a closure: every path signed by every key, every NAR at its place. Throws
 * PUBLISH_FAILED if the closure's NARs are compressed in different ways.
 */
export function indexOf(closure: PackableClosure, options: IndexOptions): ArchiveIndex {
  const archives = archivesOf(closure, options);
  const numbers = new Map(archives.map(({ sha256 }, at) => [sha256, at]));
  const positions = new Map(closure.paths.map((info, at) => [info.storePath, at]));
  const compression = compressionOf(closure);
  const index: ArchiveIndex = {
    formatVersion: INDEX_FORMAT_VERSION,
    compression,
    ...(archives.length > 0 && { archives }),
    paths: closure.paths.map((info) => indexedPath(info, options, { numbers, positions })),
  };
  // Offsets count from the end of the index, so they do not depend on its size.
  const offsets = narOffsets(layOut(ownNarInfosOf(index), 0));
  for (const { nar } of index.paths) {
    if (nar.archive === undefined) nar.offset = (offsets.get(nar.sha256) ?? 0) - endOfIndex(0);
  }
  return index;
}

function compressionOf({ paths }: PackableClosure): PackablePath["compression"] {
  const compression = paths[0]?.compression ?? "none";
  const other = paths.find((info) => info.compression !== compression);
  if (!other) return compression;
  throw new PullError(
    "PUBLISH_FAILED",
    `${other.storePath}: expected compression ${compression} as for the rest of the ` +
      `binary cache, found ${other.compression}; use a cache directory of its own`,
  );
}

/** How an index names other archives, and paths: by their position in its lists. */
interface Numbering {
  readonly numbers: ReadonlyMap<string, number>;
  readonly positions: ReadonlyMap<string, number>;
}

function indexedPath(
  info: PackablePath,
  { signer, placeOf, deltas }: IndexOptions,
  { numbers, positions }: Numbering,
): IndexedPath {
  const place = placeOf?.(info);
  const was = deltas?.was.get(info.storePath);
  const some = deltas?.deltas.get(info.storePath);
  const deltaArchive = numbers.get(deltas?.archive.sha256 ?? "") ?? 0;
  return {
    path: info.storePath,
    narHash: info.narHash,
    narSize: info.narSize,
    references: info.references
      .map((name) => positions.get(name) ?? Infinity)
      .sort((a, b) => a - b),
    signatures: signer.sign(info),
    ...(info.ca === undefined ? {} : { ca: info.ca }),
    nar: {
      ...(place && { archive: numbers.get(place.archive.sha256) ?? 0 }),
      offset: place?.offset ?? 0,
      size: info.fileSize,
      sha256: info.fileSha256,
    },
    ...(was && { was }),
    ...(some && { deltas: some.map((delta) => ({ ...delta, archive: deltaArchive })) }),
  };
}

/** Offsets of the NARs' contents, counted from the start of the archive, by their sha256. */
export function narOffsets(members: readonly Member[]): Map<string, number> {
  return new Map(
    members
      .filter(isNarMember)
      .map(({ body, headerOffset }) => [body.sha256, headerOffset + TAR_BLOCK]),
  );
}

/** The other archives of a closure, oldest first, so that what others refer to comes first. */
function archivesOf(
  closure: PackableClosure,
  { placeOf, ageOf, deltas }: IndexOptions,
): OtherArchive[] {
  const archives = new Map<string, OtherArchive>();
  if (deltas && deltas.deltas.size > 0) archives.set(deltas.archive.sha256, deltas.archive);
  for (const info of closure.paths) {
    const archive = placeOf?.(info)?.archive;
    if (archive) archives.set(archive.sha256, { sha256: archive.sha256, size: archive.size });
  }
  const age = ({ sha256 }: OtherArchive): number => ageOf?.(sha256) ?? 0;
  return [...archives.values()].sort((a, b) => age(a) - age(b));
}

import { gunzipSync, gzipSync } from "node:zlib";
import { PullError } from "../errors.ts";
import type { ArchiveReference, Release } from "./manifest.ts";
import { parseIndex, type IndexRules } from "./index-reader.ts";
import type { ArchiveIndex, OtherArchive } from "./index-schema.ts";
import { narFileName, narInfoFileName, renderNarInfo, type NarInfo } from "./narinfo.ts";
import { expectSha256 } from "./sha256.ts";
import type { PublicKey } from "./signing-key.ts";
import { STORE_DIRECTORY, storePathName } from "./store-path.ts";
import { TAR_BLOCK, TAR_TRAILER, paddedSize } from "./tar-layout.ts";

export {
  INDEX_FORMAT_VERSION,
  MAX_BASES,
  archiveIndexSchema,
  type ArchiveIndex,
  type IndexedPath,
  type OtherArchive,
} from "./index-schema.ts";

/** The index of a host's archive: its first member, pinned by the manifest. */
export const INDEX_MEMBER = "index.json.gz";

/** The decompressed index may be at most this long; 100,000 paths need about 50 MB. */
export const MAX_INDEX_BYTES = 256 * 1024 * 1024;

/** One tar member that a reader of the archive must find, and where. */
export interface Member {
  readonly name: string;
  readonly size: number;
  /** Offset of the member's header from the start of the archive, bytes. */
  readonly headerOffset: number;
  readonly body:
    | { readonly kind: "bytes"; readonly bytes: Buffer }
    | { readonly kind: "nar"; readonly sha256: string; readonly storePath: string };
}

/** A member that is a NAR. */
export type NarMember = Member & { readonly body: Extract<Member["body"], { kind: "nar" }> };

export function isNarMember(member: Member): member is NarMember {
  return member.body.kind === "nar";
}

/** A checked index together with what follows from it. */
export interface ArchiveContents {
  readonly index: ArchiveIndex;
  readonly narInfos: readonly NarInfo[];
  /** Names the archive on the mirror. */
  readonly sha256: string;
  /** All members after the index, in archive order. */
  readonly members: readonly Member[];
  /** Size of the whole archive, bytes. */
  readonly size: number;
  /** The NARs in other archives, by archive, in the order of their offsets. */
  readonly elsewhere: readonly { readonly archive: OtherArchive; readonly nars: NarMember[] }[];
}

/** All NAR members of a closure, in whatever archive. */
export function narMembersOf(
  contents: Pick<ArchiveContents, "members" | "elsewhere">,
): NarMember[] {
  return [
    ...contents.elsewhere.flatMap(({ nars }) => nars),
    ...contents.members.filter(isNarMember),
  ];
}

/** `nix-cache-info`: what makes a directory a binary cache (Nix manual, "Binary Cache Store"). */
export const CACHE_INFO = Buffer.from(`StoreDir: ${STORE_DIRECTORY}\n`);
export const CACHE_INFO_MEMBER = "nix-cache-info";

/** Serialises and compresses an index; the same index gives the same bytes. */
export function encodeIndex(index: ArchiveIndex): Buffer {
  return gzipSync(JSON.stringify(index), { level: 9 });
}

/** The narinfos that an index stands for. */
export function narInfosOf(index: ArchiveIndex): NarInfo[] {
  return index.paths.map((entry) => ({
    storePath: entry.path,
    compression: index.compression,
    fileSha256: entry.nar.sha256,
    fileSize: entry.nar.size,
    narHash: entry.narHash,
    narSize: entry.narSize,
    references: entry.references.map((position) => index.paths[position]?.path ?? "").sort(),
    signatures: entry.signatures,
    ca: entry.ca,
  }));
}

/** The narinfos of the paths whose NARs lie in the index's own archive. */
export function ownNarInfosOf(index: ArchiveIndex): NarInfo[] {
  return narInfosOf(index).filter((_, at) => index.paths[at]?.nar.archive === undefined);
}

/**
 * The members that follow an index of `indexSize` compressed bytes, with their
 * offsets: `nix-cache-info`, the narinfos sorted by name, then each NAR once, in the
 * order of the paths. `narInfos` are those of the archive's own NARs.
 */
export function layOut(narInfos: readonly NarInfo[], indexSize: number): Member[] {
  const members: Member[] = [];
  let headerOffset = endOfIndex(indexSize);
  const add = (name: string, size: number, body: Member["body"]): void => {
    members.push({ name, size, headerOffset, body });
    headerOffset += TAR_BLOCK + paddedSize(size);
  };
  const addBytes = (name: string, bytes: Buffer): void => {
    add(name, bytes.length, { kind: "bytes", bytes });
  };
  addBytes(CACHE_INFO_MEMBER, CACHE_INFO);
  const byName = narInfos
    .map((info) => ({ name: narInfoFileName(info.storePath), info }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const { name, info } of byName) addBytes(name, Buffer.from(renderNarInfo(info)));
  const seen = new Set<string>();
  for (const info of narInfos) {
    const name = narFileName(info.fileSha256, info.compression);
    // Two paths of the same contents share one NAR file in a binary cache.
    if (seen.has(name)) continue;
    seen.add(name);
    add(name, info.fileSize, { kind: "nar", sha256: info.fileSha256, storePath: info.storePath });
  }
  return members;
}

/** Offset of the first byte after the index member. */
export function endOfIndex(indexSize: number): number {
  return TAR_BLOCK + paddedSize(indexSize);
}

/** Size of an archive with these members, bytes. */
export function archiveSize(members: readonly Member[], indexSize: number): number {
  const last = members.at(-1);
  const end = last ? last.headerOffset + TAR_BLOCK + paddedSize(last.size) : endOfIndex(indexSize);
  return end + TAR_TRAILER;
}

/**
 * Checks the compressed index of a release against everything the manifest signed.
 * Throws ARCHIVE_CORRUPT when its hash is wrong, FORMAT_UNSUPPORTED, INDEX_INVALID,
 * or PATH_SIGNATURE when Nix would refuse a path anyway. With null for keys, signatures
 * are not checked: enough to know what lies where. `rules` say what else may stand for one.
 */
export function readIndex(
  compressed: Uint8Array,
  release: Pick<Release, "archive" | "toplevel" | "closureSize">,
  trustedKeys: readonly PublicKey[] | null,
  rules: IndexRules = {},
): ArchiveContents {
  return checkIndex(openIndex(compressed, release.archive), release, trustedKeys, rules);
}

/**
 * The JSON of a compressed index that has its signed hash; the JSON is not checked yet. Throws
 * ARCHIVE_CORRUPT, INDEX_INVALID.
 */
export function openIndex(compressed: Uint8Array, { index }: ArchiveReference): Buffer {
  expectSha256(compressed, index.sha256, "archive index");
  return unpackIndex(compressed);
}

/**
 * Checks an index that was made by a patch: as `readIndex`, but the signed hash is that of the
 * JSON. Throws what `readIndex` throws.
 */
export function readPatchedIndex(
  json: Uint8Array,
  release: Pick<Release, "archive" | "toplevel" | "closureSize">,
  trustedKeys: readonly PublicKey[] | null,
  rules: IndexRules = {},
): ArchiveContents {
  expectSha256(json, release.archive.index.json ?? "none", "patched index");
  return checkIndex(json, release, trustedKeys, rules);
}

/** Checks the JSON of an index: everything that `readIndex` checks except the hash. */
export function checkIndex(
  json: Uint8Array,
  release: Pick<Release, "archive" | "toplevel" | "closureSize">,
  trustedKeys: readonly PublicKey[] | null,
  rules: IndexRules = {},
): ArchiveContents {
  const { archive } = release;
  expectPlausible(json.length, archive.index.size);
  const { index, untrusted } = parseIndex(json, trustedKeys, rules);
  const narInfos = narInfosOf(index);
  const toplevel = index.paths.at(-1);
  if (toplevel?.path !== storePathName(release.toplevel)) {
    throw new PullError(
      "INDEX_INVALID",
      `expected ${release.toplevel} as the last path, found ${toplevel?.path ?? "none"}`,
    );
  }
  const closureSize = index.paths.reduce((sum, { narSize }) => sum + narSize, 0);
  if (closureSize !== release.closureSize) {
    throw new PullError(
      "INDEX_INVALID",
      `expected NAR sizes of ${release.closureSize} bytes in all, found ${closureSize}`,
    );
  }
  const members = checkLayout(index, archive);
  const elsewhere = checkElsewhere(index, narInfos);
  if (untrusted) throw untrusted;
  const { sha256, size } = archive;
  return { index, narInfos, sha256, members, size, elsewhere };
}

const NOT_AN_INDEX = `the archive index is not gzip-compressed JSON of at most ${MAX_INDEX_BYTES} bytes`;

/**
 * Hashes and signatures do not compress: the JSON of a real index has three to six times the bytes
 * of its compressed form. More than this, and a megabyte, is no index.
 */
const MAX_COMPRESSION = 64;

function longestJson(compressedSize: number): number {
  return Math.min(MAX_INDEX_BYTES, MAX_COMPRESSION * compressedSize + 1024 * 1024);
}

function expectPlausible(jsonSize: number, compressedSize: number): void {
  const longest = longestJson(compressedSize);
  if (jsonSize <= longest) return;
  throw new PullError(
    "INDEX_INVALID",
    `archive index: expected at most ${longest} bytes of JSON, found ${jsonSize}`,
  );
}

/** An index's JSON, of bounded size. Throws INDEX_INVALID. */
export function unpackIndex(compressed: Uint8Array): Buffer {
  const maxOutputLength = longestJson(compressed.length);
  // A gzip file ends with the length of what it holds: then it comes in one piece. If that is a
  // lie, it comes in several.
  const tail = Buffer.from(compressed.subarray(-4));
  const told = tail.length === 4 ? tail.readUInt32LE() : 0;
  const chunkSize = Math.max(1024, Math.min(told, maxOutputLength) + 1);
  try {
    return gunzipSync(compressed, { maxOutputLength, chunkSize });
  } catch (cause) {
    throw new PullError("INDEX_INVALID", NOT_AN_INDEX, { cause });
  }
}

function checkLayout(index: ArchiveIndex, archive: ArchiveReference): Member[] {
  const members = layOut(ownNarInfosOf(index), archive.index.size);
  const nars = new Map(members.filter(isNarMember).map((member) => [member.body.sha256, member]));
  for (const { path, nar } of index.paths) {
    if (nar.archive !== undefined) continue;
    const member = nars.get(nar.sha256);
    const offset = (member?.headerOffset ?? 0) + TAR_BLOCK - endOfIndex(archive.index.size);
    if (member?.size !== nar.size || offset !== nar.offset) {
      throw new PullError(
        "INDEX_INVALID",
        `archive index: ${path}: expected its NAR at offset ${offset} with ` +
          `${member?.size ?? 0} bytes, found offset ${nar.offset} and ${nar.size} bytes`,
      );
    }
  }
  const size = archiveSize(members, archive.index.size);
  if (size !== archive.size) {
    throw new PullError(
      "INDEX_INVALID",
      `the manifest says the archive has ${archive.size} bytes, its index adds up to ${size}`,
    );
  }
  return members;
}

/**
 * The NARs in other archives. They must lie within the archive, at block boundaries, and not
 * overlap. What else lies in those archives does not matter here.
 */
function checkElsewhere(
  index: ArchiveIndex,
  narInfos: readonly NarInfo[],
): ArchiveContents["elsewhere"] {
  const archives = index.archives ?? [];
  if (new Set(archives.map(({ sha256 }) => sha256)).size !== archives.length) {
    throw new PullError("INDEX_INVALID", "archive index: it names another archive twice");
  }
  const elsewhere = archives.map((archive) => ({ archive, nars: new Map<string, NarMember>() }));
  const places = new Map<string, string>();
  for (const [at, { path, nar }] of index.paths.entries()) {
    const refuse = (message: string): never => {
      throw new PullError("INDEX_INVALID", `archive index: ${path}: ${message}`);
    };
    const place = `${nar.archive ?? "own"} ${nar.offset} ${nar.size}`;
    if ((places.get(nar.sha256) ?? place) !== place) refuse("its NAR lies at two places");
    places.set(nar.sha256, place);
    for (const delta of index.paths[at]?.deltas ?? []) {
      const end = delta.offset + delta.size;
      if (end > (archives[delta.archive]?.size ?? 0)) refuse("a delta lies in no archive");
    }
    if (nar.archive === undefined) continue;
    const other = elsewhere[nar.archive];
    if (!other) {
      refuse(`expected one of ${archives.length} other archives, found number ${nar.archive}`);
      continue;
    }
    const end = nar.offset + paddedSize(nar.size) + TAR_TRAILER;
    if (nar.offset < TAR_BLOCK || nar.offset % TAR_BLOCK !== 0 || end > other.archive.size) {
      refuse(
        `expected its NAR at a block of an archive of ${other.archive.size} bytes, found ` +
          `offset ${nar.offset} and ${nar.size} bytes`,
      );
    }
    const name = narFileName(nar.sha256, index.compression);
    const storePath = narInfos[at]?.storePath ?? path;
    const body = { kind: "nar", sha256: nar.sha256, storePath } as const;
    const member = { name, size: nar.size, headerOffset: nar.offset - TAR_BLOCK, body };
    if (!other.nars.has(name)) other.nars.set(name, member);
  }
  return elsewhere.map(({ archive, nars }) => {
    const sorted = [...nars.values()].sort((a, b) => a.headerOffset - b.headerOffset);
    let end = 0;
    for (const { name, headerOffset, size } of sorted) {
      if (headerOffset < end) {
        throw new PullError("INDEX_INVALID", `archive index: ${name} lies in another NAR`);
      }
      end = headerOffset + TAR_BLOCK + paddedSize(size);
    }
    return { archive, nars: sorted };
  });
}

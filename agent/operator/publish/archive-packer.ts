import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { pack, type Pack } from "tar-stream";
import {
  INDEX_FORMAT_VERSION,
  INDEX_MEMBER,
  encodeIndex,
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
import type { ArchiveReference } from "../../core/formats/manifest.ts";
import {
  narInfoFileName,
  parseNarInfo,
  pathFingerprint,
  signPath,
  type ParsedNarInfo,
  type StorePathInfo,
} from "../../core/formats/narinfo.ts";
import type { SecretKey } from "../../core/formats/signing-key.ts";
import { storePathName } from "../../core/formats/store-path.ts";
import { TAR_BLOCK } from "../../core/formats/tar-layout.ts";

import type { ClosureDeltas } from "./delta-packer.ts";

const READ_SIZE = 1024 * 1024;

/** Where a NAR lies in an archive of the mirror. */
export interface NarPlace {
  readonly archive: OtherArchive;
  /** Of its contents, from the start of the archive. */
  readonly offset: number;
}

/** A path with its compressed NAR. */
export interface PackablePath extends ParsedNarInfo {
  /** The archive that has the NAR already; absent where it lies in the cache. */
  readonly place?: NarPlace | undefined;
}

/** A closure, ready to be packed. */
export interface PackableClosure {
  /** In topological order, dependencies first; the toplevel comes last. */
  readonly paths: readonly PackablePath[];
  readonly closureSize: number;
}

/**
 * Puts a toplevel's closure together out of paths that are `known` and the narinfos of
 * a binary cache. Throws PUBLISH_FAILED where one is missing or malformed.
 */
export async function readClosure(
  cache: string,
  toplevel: string,
  known: ReadonlyMap<string, PackablePath> = new Map(),
): Promise<PackableClosure> {
  const infos = new Map<string, PackablePath>();
  const queue = [storePathName(toplevel)];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (infos.has(name)) continue;
    const info = known.get(name) ?? (await readCached(cache, name));
    infos.set(name, info);
    queue.push(...info.references);
  }
  const paths = sortTopologically(infos, storePathName(toplevel));
  return { paths, closureSize: paths.reduce((sum, { narSize }) => sum + narSize, 0) };
}

/** What the cache has of a path. Throws PUBLISH_FAILED. */
export async function readCached(cache: string, name: string): Promise<PackablePath> {
  const file = narInfoFileName(name);
  const text = await readFile(join(cache, file), "utf8").catch((cause: unknown) => {
    throw new PullError("PUBLISH_FAILED", `the cache has no ${file} for ${name}`, { cause });
  });
  return parseNarInfo(text, file);
}

/** Depth first from the toplevel with references in name order: one closure, one order. */
function sortTopologically(
  infos: ReadonlyMap<string, PackablePath>,
  toplevel: string,
): PackablePath[] {
  const sorted: PackablePath[] = [];
  const entered = new Set<string>();
  const stack: { name: string; leave: boolean }[] = [{ name: toplevel, leave: false }];
  for (let top = stack.pop(); top; top = stack.pop()) {
    const info = infos.get(top.name);
    if (!info) continue;
    if (top.leave) {
      sorted.push(info);
      continue;
    }
    if (entered.has(top.name)) continue;
    entered.add(top.name);
    stack.push({ name: top.name, leave: true });
    for (const name of [...info.references].reverse()) {
      if (!entered.has(name)) stack.push({ name, leave: false });
    }
  }
  return sorted;
}

/** Signs store paths, each once for each key, however many archives list it. */
export class PathSigner {
  readonly #keys: readonly SecretKey[];
  readonly #known = new Map<string, string[]>();

  constructor(keys: readonly SecretKey[]) {
    this.#keys = keys;
  }

  sign(info: StorePathInfo): string[] {
    const known = this.#known.get(info.storePath);
    if (known) return known;
    const fingerprint = pathFingerprint(info);
    const signatures = this.#keys.map((key) => signPath(key, fingerprint));
    this.#known.set(info.storePath, signatures);
    return signatures;
  }
}

/** How a closure's NARs are divided between archives. */
export interface PackOptions {
  readonly signer: PathSigner;
  readonly cache: string;
  /** The archive in which a NAR lies or will lie; null for the closure's own. */
  readonly placeOf?: (path: PackablePath) => NarPlace | null;
  /** What the index says about older releases, and the archive of all deltas. */
  readonly deltas?: (ClosureDeltas & { readonly archive: OtherArchive }) | undefined;
  /** The age of another archive: smaller is older. They are listed oldest first. */
  readonly ageOf?: (sha256: string) => number;
  /** The file of another archive. */
  readonly archivePath?: (sha256: string) => string;
  /** Hears of every piece written. */
  readonly onBytes: (count: number) => void;
}

/** The index of a closure: every path signed by every key, every NAR at its place. */
function indexOf(closure: PackableClosure, options: PackOptions): ArchiveIndex {
  const { signer, placeOf, deltas } = options;
  const position = new Map(closure.paths.map((info, at) => [info.storePath, at]));
  const compression = closure.paths[0]?.compression ?? "none";
  const archives = archivesOf(closure, options);
  const number = new Map(archives.map(({ sha256 }, at) => [sha256, at]));
  const index: ArchiveIndex = {
    formatVersion: INDEX_FORMAT_VERSION,
    compression,
    ...(archives.length > 0 && { archives }),
    paths: closure.paths.map((info) => {
      if (info.compression !== compression) {
        throw new PullError(
          "PUBLISH_FAILED",
          `${info.storePath}: expected compression ${compression} as for the rest of the ` +
            `binary cache, found ${info.compression}; use a cache directory of its own`,
        );
      }
      const place = placeOf?.(info);
      return {
        path: info.storePath,
        narHash: info.narHash,
        narSize: info.narSize,
        references: info.references
          .map((name) => position.get(name) ?? Infinity)
          .sort((a, b) => a - b),
        signatures: signer.sign(info),
        ...(info.ca === undefined ? {} : { ca: info.ca }),
        nar: {
          ...(place && { archive: number.get(place.archive.sha256) ?? 0 }),
          offset: place?.offset ?? 0,
          size: info.fileSize,
          sha256: info.fileSha256,
        },
        ...pastOf(info.storePath, deltas, number),
      };
    }),
  };
  // Offsets count from the end of the index, so they do not depend on its size.
  const offsets = narOffsets(layOut(ownNarInfosOf(index), 0));
  for (const { nar } of index.paths) {
    if (nar.archive === undefined) nar.offset = (offsets.get(nar.sha256) ?? 0) - endOfIndex(0);
  }
  return index;
}

/** What a path was, and the ways to it from there. */
function pastOf(
  storePath: string,
  deltas: PackOptions["deltas"],
  number: ReadonlyMap<string, number>,
): Pick<IndexedPath, "was" | "deltas"> {
  const was = deltas?.was.get(storePath);
  const some = deltas?.deltas.get(storePath);
  const archive = number.get(deltas?.archive.sha256 ?? "") ?? 0;
  return {
    ...(was && { was }),
    ...(some && { deltas: some.map((delta) => ({ ...delta, archive })) }),
  };
}

/** Offsets of the NARs' contents by their sha256. */
function narOffsets(members: readonly Member[]): Map<string, number> {
  return new Map(
    members
      .filter(isNarMember)
      .map(({ body, headerOffset }) => [body.sha256, headerOffset + TAR_BLOCK]),
  );
}

/** The other archives of a closure, oldest first, so that what others refer to comes first. */
function archivesOf(
  closure: PackableClosure,
  { placeOf, ageOf, deltas }: PackOptions,
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

/**
 * Writes a closure's archive to `path` (a new file, synced): its index, and the NARs that
 * lie in no other archive. The same closure, keys, places and compressed NARs give the
 * same bytes. Throws PUBLISH_FAILED where a NAR is not what it should be.
 */
export async function packArchive(
  closure: PackableClosure,
  path: string,
  options: PackOptions,
): Promise<ArchiveReference> {
  const index = indexOf(closure, options);
  const compressed = encodeIndex(index);
  const members = layOut(ownNarInfosOf(index), compressed.length);
  const indexMember = { name: INDEX_MEMBER, body: { kind: "bytes", bytes: compressed } } as const;
  const written = await writeTar(path, [indexMember, ...members], closure.paths, options);
  return {
    ...written,
    index: {
      sha256: createHash("sha256").update(compressed).digest("hex"),
      size: compressed.length,
    },
  };
}

/**
 * Writes an archive of NARs that several closures share: a binary cache without an
 * index, since each closure's own index says where they are. Gives their places.
 */
export async function packShared(
  paths: readonly PackablePath[],
  path: string,
  options: Omit<PackOptions, "placeOf">,
): Promise<{ archive: OtherArchive; offsets: ReadonlyMap<string, number> }> {
  const { signer } = options;
  const narInfos = paths.map((info) => ({ ...info, signatures: signer.sign(info) }));
  const members = layOut(narInfos, 0);
  const archive = await writeTar(path, members, paths, options);
  // There is no index, not even an empty one, before the members.
  const offsets = new Map(
    [...narOffsets(members)].map(([sha256, offset]) => [sha256, offset - endOfIndex(0)]),
  );
  return { archive, offsets };
}

/** Writes a tar of these members, NARs out of the cache or of another archive. */
async function writeTar(
  path: string,
  members: readonly Pick<Member, "name" | "body">[],
  paths: readonly PackablePath[],
  { cache, archivePath, onBytes }: Omit<PackOptions, "placeOf" | "signer">,
): Promise<OtherArchive> {
  const sources = new Map(paths.map((info) => [info.fileSha256, info]));
  const tar = pack({ highWaterMark: READ_SIZE });
  // Whoever waits for the archive hears of it; the event alone would end the process.
  tar.on("error", () => undefined);
  const archive = { hash: createHash("sha256"), size: 0 };
  const file = await open(path, "wx", 0o644);
  try {
    const writing = (async () => {
      for await (const chunk of tar as AsyncIterable<Buffer>) {
        archive.hash.update(chunk);
        archive.size += chunk.length;
        await file.appendFile(chunk);
        onBytes(chunk.length);
      }
    })();
    const packing = (async () => {
      for (const { name, body } of members) {
        if (body.kind === "bytes") {
          await addBytes(tar, name, body.bytes);
          continue;
        }
        const info = sources.get(body.sha256);
        if (!info) throw new Error(`no source for ${name}`);
        const { place } = info;
        const file = place
          ? { path: archivePath?.(place.archive.sha256) ?? "", start: place.offset }
          : { path: join(cache, info.url), start: 0 };
        await addNar(tar, name, info.fileSize, file, body.sha256);
      }
      tar.finalize();
    })().catch((error: unknown) => {
      tar.destroy(error as Error);
      throw error;
    });
    const [packed, written] = await Promise.allSettled([packing, writing]);
    if (packed.status === "rejected") throw packed.reason;
    if (written.status === "rejected") throw written.reason;
    await file.sync();
  } finally {
    await file.close();
  }
  return { sha256: archive.hash.digest("hex"), size: archive.size };
}

/** Everything that could differ between two runs is fixed: mode, owner, time. */
function headerOf(name: string, size: number) {
  return { name, size, mode: 0o644, uid: 0, gid: 0, mtime: new Date(0), type: "file" } as const;
}

function addBytes(tar: Pack, name: string, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    tar.entry(headerOf(name, bytes.length), bytes, (error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}

async function addNar(
  tar: Pack,
  name: string,
  size: number,
  { path: source, start }: { path: string; start: number },
  sha256: string,
): Promise<void> {
  const hash = createHash("sha256");
  await new Promise<void>((resolve, reject) => {
    const entry = tar.entry(headerOf(name, size), (error) => {
      if (error)
        reject(new PullError("PUBLISH_FAILED", `${source}: ${error.message}`, { cause: error }));
      else resolve();
    });
    entry.on("error", (error) => {
      reject(new PullError("PUBLISH_FAILED", `${source}: ${error.message}`, { cause: error }));
    });
    const range = start === 0 ? {} : { start, end: start + size - 1 };
    const reading = createReadStream(source, { highWaterMark: READ_SIZE, ...range });
    reading.on("data", (chunk) => hash.update(chunk));
    reading.once("error", (error) => {
      reject(error);
      entry.destroy(error);
    });
    reading.pipe(entry);
  });
  const found = hash.digest("hex");
  if (found !== sha256) {
    throw new PullError(
      "PUBLISH_FAILED",
      `${source}: expected sha256 ${sha256}, found ${found}; remove the cache directory`,
    );
  }
}

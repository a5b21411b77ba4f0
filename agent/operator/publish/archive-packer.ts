import { readFileSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { pack, type Pack } from "tar-stream";
import {
  INDEX_MEMBER,
  encodeIndex,
  endOfIndex,
  layOut,
  ownNarInfosOf,
  type Member,
  type OtherArchive,
} from "../../core/formats/archive-index.ts";
import { PullError } from "../../core/errors.ts";
import { Sha256, sha256Hex } from "../../core/formats/sha256.ts";
import type { ArchiveReference } from "../../core/formats/manifest.ts";
import { indexOf, narOffsets, type IndexOptions } from "./closure-index.ts";
import type { PackableClosure, PackablePath } from "./packable-closure.ts";

const READ_SIZE = 1024 * 1024;

/** Where an archive's NARs come from, and who hears of what is written. */
export interface TarSources {
  /** The binary cache. */
  readonly cache: string;
  /** Opens another archive; needed if a path lies in one. */
  readonly openArchive?: (sha256: string) => Promise<FileHandle>;
  /** Hears of every piece written. */
  readonly onBytes: (count: number) => void;
}

export interface PackOptions extends IndexOptions, TarSources {}

/**
 * Writes a closure's archive to `path` (a new file, synced): its index, and the NARs that
 * lie in no other archive. The same closure, keys, places and compressed NARs give the
 * same bytes. Throws PUBLISH_FAILED if a NAR does not have its hash.
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
    index: { sha256: sha256Hex(compressed), size: compressed.length },
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

/** Writes a tar of these members, with NARs from the cache or from another archive. */
async function writeTar(
  path: string,
  members: readonly Pick<Member, "name" | "body">[],
  paths: readonly PackablePath[],
  sources: TarSources,
): Promise<OtherArchive> {
  const tar = pack({ highWaterMark: READ_SIZE });
  // `fillTar` rejects with the error too. Without a listener the event would end the process.
  tar.on("error", () => undefined);
  const file = await open(path, "wx", 0o644);
  try {
    const written = writePieces(tar, file, sources.onBytes);
    const filled = fillTar(tar, members, paths, sources);
    const [filling, writing] = await Promise.allSettled([filled, written]);
    if (filling.status === "rejected") throw filling.reason;
    if (writing.status === "rejected") throw writing.reason;
    await file.sync();
    return writing.value;
  } finally {
    await file.close();
  }
}

/** Writes the pieces of a tar as they come, small ones together; gives what they were. */
async function writePieces(
  tar: Pack,
  file: FileHandle,
  onBytes: (count: number) => void,
): Promise<OtherArchive> {
  const hash = new Sha256();
  let gathered: Buffer[] = [];
  let length = 0;
  const flush = async (): Promise<void> => {
    const bytes = gathered.length === 1 && gathered[0] ? gathered[0] : Buffer.concat(gathered);
    gathered = [];
    length = 0;
    hash.add(bytes);
    await file.appendFile(bytes);
    onBytes(bytes.length);
  };
  for await (const piece of tar as AsyncIterable<Buffer>) {
    gathered.push(piece);
    length += piece.length;
    if (length >= READ_SIZE) await flush();
  }
  await flush();
  return { sha256: hash.hex(), size: hash.size };
}

/** Puts the members into the tar, and ends it. Destroys it if a member cannot be had. */
async function fillTar(
  tar: Pack,
  members: readonly Pick<Member, "name" | "body">[],
  paths: readonly PackablePath[],
  sources: TarSources,
): Promise<void> {
  const infos = new Map(paths.map((info) => [info.fileSha256, info]));
  try {
    for (const { name, body } of members) {
      if (body.kind === "bytes") {
        await addBytes(tar, name, body.bytes);
        continue;
      }
      const info = infos.get(body.sha256);
      if (!info) throw new Error(`no source for ${name}`);
      await addNar(tar, name, info, sources);
    }
    tar.finalize();
  } catch (error) {
    tar.destroy(error as Error);
    throw error;
  }
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

/** NARs up to this size are read synchronously: each asynchronous call takes as long as reading one. */
const SMALL_BYTES = 64 * 1024;

/** Adds a NAR with its hash, or throws PUBLISH_FAILED. */
async function addNar(
  tar: Pack,
  name: string,
  { place, url, fileSize: size, fileSha256: expected }: PackablePath,
  { cache, openArchive }: TarSources,
): Promise<void> {
  const elsewhere = place && openArchive ? { place, openArchive } : null;
  const where = elsewhere ? `archive ${elsewhere.place.archive.sha256}` : join(cache, url);
  let found: string;
  if (elsewhere) {
    const { archive, offset } = elsewhere.place;
    const file = await elsewhere.openArchive(archive.sha256);
    found = await addRange(tar, name, { file, where, start: offset, size });
  } else if (size <= SMALL_BYTES) {
    const bytes = readFileSync(where);
    if (bytes.length !== size) throw endsEarly(where, size, bytes.length);
    await addBytes(tar, name, bytes);
    found = sha256Hex(bytes);
  } else {
    found = await addRange(tar, name, { file: await open(where), where, start: 0, size });
  }
  if (found === expected) return;
  throw new PullError(
    "PUBLISH_FAILED",
    `${where}: expected sha256 ${expected}, found ${found}; remove the cache directory`,
  );
}

/** A NAR in an open file, from byte `start` on. */
interface NarSource {
  /** Closed at the end. */
  readonly file: FileHandle;
  /** Names the file. */
  readonly where: string;
  readonly start: number;
  readonly size: number;
}

/** Adds a part of a file; gives its sha256, hex. */
async function addRange(
  tar: Pack,
  name: string,
  { file, where, start, size }: NarSource,
): Promise<string> {
  const hash = new Sha256();
  await new Promise<void>((resolve, reject) => {
    const refuse = (): void => {
      reject(endsEarly(where, size, hash.size));
    };
    const entry = tar.entry(headerOf(name, size), (error) => {
      if (error) refuse();
      else resolve();
    });
    // A file of the cache is read to its end, so that one that grew is noticed.
    const reading = file.createReadStream({
      ...{ highWaterMark: READ_SIZE, start },
      ...(start > 0 && { end: start + size - 1 }),
    });
    reading.on("data", (chunk) => {
      hash.add(chunk as Buffer);
    });
    reading.once("error", (error) => {
      reject(error);
      entry.destroy(error);
    });
    entry.on("error", () => {
      reading.destroy();
      refuse();
    });
    reading.pipe(entry);
  });
  return hash.hex();
}

function endsEarly(where: string, expected: number, found: number): PullError {
  return new PullError(
    "PUBLISH_FAILED",
    `${where}: expected ${expected} bytes, found ${found}; remove the cache directory`,
  );
}

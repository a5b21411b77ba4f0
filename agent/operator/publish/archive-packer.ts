import { readFileSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
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
import { TAR_BLOCK, TAR_TRAILER, paddedSize, tarHeader } from "../../core/formats/tar-layout.ts";
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
  const infos = new Map(paths.map((info) => [info.fileSha256, info]));
  const file = await open(path, "wx", 0o644);
  try {
    const tar = new TarFile(file, sources.onBytes);
    for (const { name, body } of members) {
      if (body.kind === "bytes") {
        await tar.add(tarHeader(name, body.bytes.length));
        await tar.add(body.bytes);
      } else {
        const info = infos.get(body.sha256);
        if (!info) throw new Error(`no source for ${name}`);
        await tar.add(tarHeader(name, info.fileSize));
        await addNar(tar, info, sources);
      }
      await tar.add(PADDING.subarray(0, paddedSize(tar.size) - tar.size));
    }
    await tar.add(Buffer.alloc(TAR_TRAILER));
    await tar.flush();
    await file.sync();
    return { sha256: tar.sha256(), size: tar.size };
  } finally {
    await file.close();
  }
}

const PADDING = Buffer.alloc(TAR_BLOCK);

/** A tar that is being written. Small pieces are gathered: each write of its own would cost more. */
class TarFile {
  readonly #file: FileHandle;
  readonly #onBytes: (count: number) => void;
  readonly #hash = new Sha256();
  readonly #gathered = Buffer.allocUnsafe(READ_SIZE);
  #length = 0;

  constructor(file: FileHandle, onBytes: (count: number) => void) {
    this.#file = file;
    this.#onBytes = onBytes;
  }

  /** Bytes that were added so far. */
  get size(): number {
    return this.#hash.size + this.#length;
  }

  async add(bytes: Buffer): Promise<void> {
    if (this.#length + bytes.length > READ_SIZE) await this.flush();
    if (bytes.length > READ_SIZE) await this.#write(bytes);
    else this.#length += bytes.copy(this.#gathered, this.#length);
  }

  async flush(): Promise<void> {
    await this.#write(this.#gathered.subarray(0, this.#length));
    this.#length = 0;
  }

  /** Of everything that was flushed, hex. Nothing can be added after it. */
  sha256(): string {
    return this.#hash.hex();
  }

  async #write(bytes: Buffer): Promise<void> {
    this.#hash.add(bytes);
    await this.#file.appendFile(bytes);
    this.#onBytes(bytes.length);
  }
}

/** NARs up to this size are read synchronously: each asynchronous call takes as long as reading one. */
const SMALL_BYTES = 64 * 1024;

/** Adds a NAR with its hash, or throws PUBLISH_FAILED. */
async function addNar(
  tar: TarFile,
  { place, url, fileSize: size, fileSha256: expected }: PackablePath,
  { cache, openArchive }: TarSources,
): Promise<void> {
  const elsewhere = place && openArchive ? { place, openArchive } : null;
  const where = elsewhere ? `archive ${elsewhere.place.archive.sha256}` : join(cache, url);
  let found: string;
  if (elsewhere) {
    const { archive, offset } = elsewhere.place;
    const file = await elsewhere.openArchive(archive.sha256);
    found = await addRange(tar, { file, where, start: offset, size });
  } else if (size <= SMALL_BYTES) {
    const bytes = readFileSync(where);
    if (bytes.length !== size) throw endsEarly(where, size, bytes.length);
    await tar.add(bytes);
    found = sha256Hex(bytes);
  } else {
    found = await addRange(tar, { file: await open(where), where, start: 0, size });
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
async function addRange(tar: TarFile, { file, where, start, size }: NarSource): Promise<string> {
  const hash = new Sha256();
  try {
    const buffer = Buffer.allocUnsafe(Math.min(READ_SIZE, size));
    while (hash.size < size) {
      const length = Math.min(buffer.length, size - hash.size);
      const { bytesRead } = await file.read(buffer, 0, length, start + hash.size);
      if (bytesRead === 0) throw endsEarly(where, size, hash.size);
      const bytes = buffer.subarray(0, bytesRead);
      hash.add(bytes);
      await tar.add(bytes);
    }
  } finally {
    await file.close();
  }
  return hash.hex();
}

function endsEarly(where: string, expected: number, found: number): PullError {
  return new PullError(
    "PUBLISH_FAILED",
    `${where}: expected ${expected} bytes, found ${found}; remove the cache directory`,
  );
}

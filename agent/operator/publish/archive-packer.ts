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
  const hash = new Sha256();
  const file = await open(path, "wx", 0o644);
  try {
    const writing = (async () => {
      for await (const chunk of tar as AsyncIterable<Buffer>) {
        hash.add(chunk);
        await file.appendFile(chunk);
        sources.onBytes(chunk.length);
      }
    })();
    const packing = fillTar(tar, members, paths, sources);
    const [packed, written] = await Promise.allSettled([packing, writing]);
    if (packed.status === "rejected") throw packed.reason;
    if (written.status === "rejected") throw written.reason;
    await file.sync();
  } finally {
    await file.close();
  }
  return { sha256: hash.hex(), size: hash.size };
}

/** Puts the members into the tar, and ends it. Destroys it if a member cannot be had. */
async function fillTar(
  tar: Pack,
  members: readonly Pick<Member, "name" | "body">[],
  paths: readonly PackablePath[],
  { cache, openArchive }: TarSources,
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
      const { place, fileSize: size } = info;
      const { sha256 } = body;
      if (place && openArchive) {
        const where = `archive ${place.archive.sha256}`;
        const file = await openArchive(place.archive.sha256);
        await addNar(tar, name, { file, where, start: place.offset, size, sha256 });
      } else {
        const where = join(cache, info.url);
        await addNar(tar, name, { file: await open(where), where, start: 0, size, sha256 });
      }
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

/** A NAR in an open file, from byte `start` on. */
interface NarSource {
  /** Closed at the end. */
  readonly file: FileHandle;
  /** Names the file. */
  readonly where: string;
  readonly start: number;
  readonly size: number;
  readonly sha256: string;
}

async function addNar(
  tar: Pack,
  name: string,
  { file, where, start, size, sha256 }: NarSource,
): Promise<void> {
  const hash = new Sha256();
  await new Promise<void>((resolve, reject) => {
    const refuse = (error: Error): void => {
      reject(new PullError("PUBLISH_FAILED", `${where}: ${error.message}`, { cause: error }));
    };
    const entry = tar.entry(headerOf(name, size), (error) => {
      if (error) refuse(error);
      else resolve();
    });
    const range = start === 0 ? {} : { start, end: start + size - 1 };
    const reading = file.createReadStream({ highWaterMark: READ_SIZE, ...range });
    reading.on("data", (chunk) => {
      hash.add(chunk as Buffer);
    });
    reading.once("error", (error) => {
      reject(error);
      entry.destroy(error);
    });
    entry.on("error", (error) => {
      reading.destroy();
      refuse(error);
    });
    reading.pipe(entry);
  });
  const found = hash.hex();
  if (found !== sha256) {
    throw new PullError(
      "PUBLISH_FAILED",
      `${where}: expected sha256 ${sha256}, found ${found}; remove the cache directory`,
    );
  }
}

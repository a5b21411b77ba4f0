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
  narInfosOf,
  type ArchiveIndex,
} from "../core/archive-index.ts";
import { PullError } from "../core/errors.ts";
import type { ArchiveReference } from "../core/manifest.ts";
import {
  narInfoFileName,
  parseNarInfo,
  pathFingerprint,
  signPath,
  type ParsedNarInfo,
} from "../core/narinfo.ts";
import type { SecretKey } from "../core/signing-key.ts";
import { storePathName } from "../core/store-path.ts";
import { TAR_BLOCK } from "../core/tar-layout.ts";

const READ_SIZE = 1024 * 1024;

/** A closure in a binary cache, ready to be packed. */
export interface PackableClosure {
  /** In topological order, dependencies first; the toplevel comes last. */
  readonly paths: readonly ParsedNarInfo[];
  readonly closureSize: number;
}

/**
 * Reads the narinfos of a toplevel's closure from the binary cache that `nix copy`
 * made. Throws PUBLISH_FAILED where one is missing or malformed.
 */
export async function readClosure(cache: string, toplevel: string): Promise<PackableClosure> {
  const infos = new Map<string, ParsedNarInfo>();
  const queue = [storePathName(toplevel)];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (infos.has(name)) continue;
    const file = narInfoFileName(name);
    const text = await readFile(join(cache, file), "utf8").catch((cause: unknown) => {
      throw new PullError("PUBLISH_FAILED", `nix copy left no ${file} for ${name}`, { cause });
    });
    const info = parseNarInfo(text, file);
    infos.set(name, info);
    queue.push(...info.references);
  }
  const paths = sortTopologically(infos, storePathName(toplevel));
  return { paths, closureSize: paths.reduce((sum, { narSize }) => sum + narSize, 0) };
}

/** Depth first from the toplevel with references in name order: one closure, one order. */
function sortTopologically(
  infos: ReadonlyMap<string, ParsedNarInfo>,
  toplevel: string,
): ParsedNarInfo[] {
  const sorted: ParsedNarInfo[] = [];
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

/** The index of a closure: every path signed by every key, every NAR at its place. */
function indexOf(closure: PackableClosure, keys: readonly SecretKey[]): ArchiveIndex {
  const position = new Map(closure.paths.map((info, at) => [info.storePath, at]));
  const compression = closure.paths[0]?.compression ?? "none";
  const index: ArchiveIndex = {
    formatVersion: INDEX_FORMAT_VERSION,
    compression,
    paths: closure.paths.map((info) => {
      if (info.compression !== compression) {
        throw new PullError(
          "PUBLISH_FAILED",
          `${info.storePath}: expected compression ${compression} as for the rest of the ` +
            `binary cache, found ${info.compression}; use a cache directory of its own`,
        );
      }
      return {
        path: info.storePath,
        narHash: info.narHash,
        narSize: info.narSize,
        references: info.references
          .map((name) => position.get(name) ?? Infinity)
          .sort((a, b) => a - b),
        signatures: keys.map((key) => signPath(key, pathFingerprint(info))),
        ...(info.ca === undefined ? {} : { ca: info.ca }),
        nar: { offset: 0, size: info.fileSize, sha256: info.fileSha256 },
      };
    }),
  };
  // Offsets count from the end of the index, so they do not depend on its size.
  const offsets = new Map(
    layOut(narInfosOf(index), 0)
      .filter(isNarMember)
      .map(({ body, headerOffset }) => [body.sha256, headerOffset + TAR_BLOCK - endOfIndex(0)]),
  );
  for (const { nar } of index.paths) nar.offset = offsets.get(nar.sha256) ?? 0;
  return index;
}

/**
 * Writes a closure archive to `path` (a new file, synced). The same closure, keys and
 * compressed NARs give the same bytes. `onBytes` hears of every piece written. Throws
 * PUBLISH_FAILED where a NAR in the cache is not what its narinfo says.
 */
export async function packArchive(
  closure: PackableClosure,
  keys: readonly SecretKey[],
  cache: string,
  path: string,
  onBytes: (count: number) => void,
): Promise<ArchiveReference> {
  const index = indexOf(closure, keys);
  const compressed = encodeIndex(index);
  const members = layOut(narInfosOf(index), compressed.length);
  const urls = new Map(closure.paths.map((info) => [info.fileSha256, info.url]));

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
      await addBytes(tar, INDEX_MEMBER, compressed);
      for (const member of members) {
        if (isNarMember(member)) {
          const nar = join(cache, urls.get(member.body.sha256) ?? member.name);
          await addNar(tar, member.name, member.size, nar, member.body.sha256);
        } else if (member.body.kind === "bytes") {
          await addBytes(tar, member.name, member.body.bytes);
        }
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
  return {
    sha256: archive.hash.digest("hex"),
    size: archive.size,
    index: {
      sha256: createHash("sha256").update(compressed).digest("hex"),
      size: compressed.length,
    },
  };
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
  source: string,
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
    const reading = createReadStream(source, { highWaterMark: READ_SIZE });
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

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { IndexedPath, OtherArchive } from "../../core/formats/archive-index.ts";
import { PullError } from "../../core/errors.ts";
import { narInfoFileName, parseNarInfo, type ParsedNarInfo } from "../../core/formats/narinfo.ts";
import { storePathName } from "../../core/formats/store-path.ts";

/** Where a NAR lies in an archive of the mirror. */
export interface NarPlace {
  readonly archive: OtherArchive;
  /** Of its contents, from the start of the archive. */
  readonly offset: number;
}

/** A path with its compressed NAR. */
export interface PackablePath extends ParsedNarInfo {
  /** The archive that has the NAR already; absent if the NAR lies in the cache. */
  readonly place?: NarPlace | undefined;
}

/** A closure, ready to be packed. */
export interface PackableClosure {
  /** In topological order, dependencies first; the toplevel comes last. */
  readonly paths: readonly PackablePath[];
  readonly closureSize: number;
}

/** A delta as an index lists it, without the archive, which all deltas of a release share. */
export type UnplacedDelta = Omit<NonNullable<IndexedPath["deltas"]>[number], "archive">;

/** What a closure's index says about older releases, by base name of the path. */
export interface ClosureDeltas {
  /** The path's counterpart in each base release, as the index encodes it. */
  readonly was: ReadonlyMap<string, string[]>;
  readonly deltas: ReadonlyMap<string, UnplacedDelta[]>;
}

/**
 * Puts a toplevel's closure together, out of `known` paths and the narinfos of a binary cache.
 * Throws PUBLISH_FAILED if a narinfo is missing or malformed.
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
async function readCached(cache: string, name: string): Promise<PackablePath> {
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

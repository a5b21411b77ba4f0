import {
  endOfIndex,
  isNarMember,
  type ArchiveContents,
  type NarMember,
} from "../formats/archive-index.ts";
import { covers, joinRanges, type ByteRange } from "../formats/byte-ranges.ts";
import { DEFAULT_DELTA_NAR_BYTES, deltaOffers, type Delta } from "./delta.ts";
import { planRuns } from "./fetch-plan.ts";
import { narFileName } from "../formats/narinfo.ts";
import { TAR_BLOCK, paddedSize } from "../formats/tar-layout.ts";

/** What of one archive a stick has to have. */
export interface ArchiveNeed {
  readonly sha256: string;
  /** Of the whole archive. */
  readonly size: number;
  /** Null for all of it. */
  readonly ranges: readonly ByteRange[] | null;
  /** What lies in the ranges and is to be verified there. */
  readonly members: readonly NarMember[];
  readonly deltas: readonly Delta[];
}

/** What one host needs, archive by archive: its own first. */
export interface ClosureNeed {
  readonly archives: readonly ArchiveNeed[];
  /** NARs and deltas among them; null if the whole closure is needed. */
  readonly members: number | null;
}

/** Deltas in a row are read together with what lies between them. */
export const DELTA_GAP = 4 * 1024;

export interface NeedOptions {
  /** Base names of the store paths that the host has; null if that is not known. */
  readonly held: ReadonlySet<string> | null;
  /** Whether deltas stand in for the paths that the host can make with them. */
  readonly deltas: boolean;
  /** Which bytes of each archive are available, if not all are. */
  readonly parts: ReadonlyMap<string, readonly ByteRange[]>;
}

/** Where a member lies: its header, contents and padding. */
export function rangeOf({
  headerOffset,
  size,
}: Pick<NarMember, "headerOffset" | "size">): ByteRange {
  return { from: headerOffset, to: headerOffset + TAR_BLOCK + paddedSize(size) };
}

/**
 * What a host will read of each archive. An agent that wants these paths, or fewer,
 * reads within the ranges: they are the runs of its own plan, and a plan for fewer
 * members never leaves the runs of one for more.
 */
export function needOf(
  contents: ArchiveContents,
  indexSize: number,
  { held, deltas, parts }: NeedOptions,
): ClosureNeed {
  const { chosen, replaced } = deltas && held ? chooseDeltas(contents, held) : NO_DELTAS;
  const names = new Set(
    contents.narInfos
      .filter(({ storePath }) => !held?.has(storePath) && !replaced.has(storePath))
      .map((info) => narFileName(info.fileSha256, info.compression)),
  );
  const runs = planRuns(contents, new Map([...names].map((name) => [name, 0])));
  const own = contents.members.filter(isNarMember);
  const sources = [
    { sha256: contents.sha256, size: contents.size, nars: own },
    ...contents.elsewhere.map(({ archive, nars }) => ({ ...archive, nars })),
  ];
  const archives = sources.map(({ sha256, size, nars }): ArchiveNeed => {
    const isOwn = sha256 === contents.sha256;
    const index: ByteRange[] = isOwn ? [{ from: 0, to: endOfIndex(indexSize) }] : [];
    const available = parts.get(sha256);
    if (available) {
      // As it came: the ranges were planned once, for these hosts.
      const members = nars.filter((member) => covers(available, rangeOf(member)));
      const here = chosen.filter(({ archive }) => archive.sha256 === sha256);
      return { sha256, size, ranges: available, members, deltas: here };
    }
    const isWhole = held === null || (isOwn && nars.every(({ name }) => names.has(name)));
    if (isWhole) return { sha256, size, ranges: null, members: [], deltas: [] };
    const wanted = chosen.filter(({ archive }) => archive.sha256 === sha256);
    const ranges = joinRanges([
      ...index,
      ...runs.filter(({ archive }) => archive === sha256),
      ...joinRanges(
        wanted.map(({ offset, size }) => ({ from: offset, to: offset + size })),
        DELTA_GAP,
      ),
    ]);
    const members = nars.filter(({ name }) => names.has(name));
    // Also if it is nothing: the host then sees what kind of stick this is.
    return { sha256, size, ranges, members, deltas: wanted };
  });
  const isPart = archives.some(({ ranges }) => ranges !== null) || held !== null;
  return { archives, members: isPart ? countMembers(contents, archives) : null };
}

const NO_DELTAS: ReturnType<typeof chooseDeltas> = { chosen: [], replaced: new Set() };

/** All deltas of the paths of which the host holds a base: whichever it takes is there. */
function chooseDeltas(
  contents: ArchiveContents,
  held: ReadonlySet<string>,
): { chosen: Delta[]; replaced: Set<string> } {
  const chosen: Delta[] = [];
  const replaced = new Set<string>();
  for (const { entry, deltas } of deltaOffers(contents, DEFAULT_DELTA_NAR_BYTES)) {
    const isPossible = deltas.some(({ base }) => held.has(base.slice(base.lastIndexOf("/") + 1)));
    if (held.has(entry.path) || !isPossible) continue;
    chosen.push(...deltas);
    replaced.add(entry.path);
  }
  return { chosen, replaced };
}

/** How many of a closure's NARs and deltas lie in these parts of archives. */
export function countMembers(
  contents: ArchiveContents,
  archives: readonly Pick<ArchiveNeed, "sha256" | "ranges">[],
): number {
  return membersWithin(contents, new Map(archives.map(({ sha256, ranges }) => [sha256, ranges])))
    .count;
}

/**
 * The NARs and deltas of a closure that lie in what there is: by archive its ranges, null
 * for all of it, no entry if it is not there.
 */
export function membersWithin(
  contents: ArchiveContents,
  parts: ReadonlyMap<string, readonly ByteRange[] | null>,
): {
  nars: Map<string, NarMember[]>;
  deltas: Map<string, Delta[]>;
  count: number;
  missing: number;
} {
  const nars = new Map<string, NarMember[]>();
  const deltas = new Map<string, Delta[]>();
  let count = 0;
  let missing = 0;
  const isHere = (sha256: string, range: ByteRange): boolean => {
    const ranges = parts.get(sha256);
    return ranges !== undefined && (ranges === null || covers(ranges, range));
  };
  const sources = [
    { sha256: contents.sha256, members: contents.members.filter(isNarMember) },
    ...contents.elsewhere.map(({ archive, nars }) => ({ sha256: archive.sha256, members: nars })),
  ];
  for (const { sha256, members } of sources) {
    const here = members.filter((member) => isHere(sha256, rangeOf(member)));
    nars.set(sha256, here);
    count += here.length;
    missing += members.length - here.length;
  }
  for (const { deltas: some } of deltaOffers(contents, Infinity)) {
    for (const delta of some) {
      const { sha256 } = delta.archive;
      if (!isHere(sha256, { from: delta.offset, to: delta.offset + delta.size })) continue;
      deltas.set(sha256, [...(deltas.get(sha256) ?? []), delta]);
      count++;
    }
  }
  return { nars, deltas, count, missing };
}

/** Two hosts' needs of the same archive as one. */
export function mergeNeeds(a: ArchiveNeed, b: ArchiveNeed): ArchiveNeed {
  const { sha256, size } = a;
  if (a.ranges === null || b.ranges === null) {
    return { sha256, size, ranges: null, members: [], deltas: [] };
  }
  const members = new Map(
    [...a.members, ...b.members].map((it) => [`${it.headerOffset} ${it.name}`, it]),
  );
  const deltas = new Map([...a.deltas, ...b.deltas].map((it) => [`${it.offset} ${it.sha256}`, it]));
  return {
    ...{ sha256, size, ranges: joinRanges([...a.ranges, ...b.ranges]) },
    members: [...members.values()].sort((x, y) => x.headerOffset - y.headerOffset),
    deltas: [...deltas.values()],
  };
}

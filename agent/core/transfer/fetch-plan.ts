import { isNarMember, type ArchiveContents, type Member } from "../formats/archive-index.ts";
import { TAR_BLOCK, paddedSize } from "../formats/tar-layout.ts";

/** What a run does with one member on its way. */
export interface RunMember {
  readonly member: Member;
  /** False if the member only lies between two wanted ones; its contents are skipped. */
  readonly wanted: boolean;
  /** Bytes of its contents that are here already; a run that starts inside a member resumes it. */
  readonly have: number;
}

/**
 * Members that one request reads: bytes `from` up to and not including `to` of an
 * archive. What lies between them is read past.
 */
export interface Run {
  /** Names the archive on the mirror. */
  readonly archive: string;
  readonly from: number;
  readonly to: number;
  readonly members: readonly RunMember[];
}

/** Unwanted bytes that cost less to read through than another request. */
export const DEFAULT_GAP = 16 * 1024;

/**
 * Plans the reads that bring in the wanted NARs, archive by archive: other archives
 * first, in the order in which they can be imported. `missing` has, for each wanted
 * member's name, how many of its bytes are held already. An archive that names no others
 * is read whole, narinfos and end included, and so checked, if every NAR is missing; of
 * a small one, which comes with every update, that would be the most of it.
 * `gap` is in bytes; Infinity makes one run for each archive, for mirrors without
 * ranges. A run of more than one member wants at most `limit` bytes, so that what it
 * brings finds room.
 */
export function planRuns(
  contents: ArchiveContents,
  missing: ReadonlyMap<string, number>,
  gap: number = DEFAULT_GAP,
  limit = Infinity,
): Run[] {
  if (missing.size === 0) return [];
  const bounds = { gap, limit };
  const runs = contents.elsewhere.flatMap(({ archive, nars }) =>
    planArchive(archive.sha256, nars, missing, bounds),
  );
  const nars = contents.members.filter(isNarMember);
  const stands = contents.elsewhere.length === 0 && nars.length > 0;
  const whole = stands && nars.every(({ name }) => missing.get(name) === 0);
  if (!whole) return [...runs, ...planArchive(contents.sha256, nars, missing, bounds)];
  const everything = new Map(contents.members.map(({ name }) => [name, 0]));
  const own = planArchive(contents.sha256, contents.members, everything, bounds);
  return [
    ...runs,
    ...own.slice(0, -1),
    ...own.slice(-1).map((it) => ({ ...it, to: contents.size })),
  ];
}

/** Plans the reads of one archive's members, which are in the order of their offsets. */
export function planArchive(
  archive: string,
  members: readonly Member[],
  missing: ReadonlyMap<string, number>,
  { gap, limit }: { gap: number; limit: number },
): Run[] {
  const runs: { archive: string; from: number; to: number; members: RunMember[] }[] = [];
  let between: RunMember[] = [];
  let wantedBytes = 0;
  for (const member of members) {
    const have = missing.get(member.name);
    if (have === undefined) {
      if (isNarMember(member)) between.push({ member, wanted: false, have: 0 });
      continue;
    }
    const dataOffset = member.headerOffset + TAR_BLOCK;
    const from = have > 0 ? dataOffset + have : member.headerOffset;
    const to = dataOffset + paddedSize(member.size);
    const run = runs.at(-1);
    // One run serves a mirror without ranges; what is held of a member in its middle is
    // then read again with it.
    const size = isNarMember(member) ? member.size : 0;
    const joins = (have === 0 || gap === Infinity) && wantedBytes + size <= limit;
    if (run && joins && member.headerOffset - run.to <= gap) {
      run.members.push(...between, { member, wanted: true, have: 0 });
      run.to = to;
      wantedBytes += size;
    } else {
      runs.push({ archive, from, to, members: [{ member, wanted: true, have }] });
      wantedBytes = size;
    }
    between = [];
  }
  return runs;
}

/** Sizes of the NARs that a run brings, whole. */
export function wantedBytesOf(run: Run): number {
  return run.members.reduce(
    (sum, { member, wanted }) => sum + (wanted && member.body.kind === "nar" ? member.size : 0),
    0,
  );
}

/** Bytes that the runs read. */
export function bytesOf(runs: readonly Run[]): number {
  return runs.reduce((sum, run) => sum + run.to - run.from, 0);
}

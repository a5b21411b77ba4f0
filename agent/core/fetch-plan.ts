import type { ArchiveContents, Member } from "./archive-index.ts";
import { TAR_BLOCK, paddedSize } from "./tar-layout.ts";

/** What a run does with one member on its way. */
export interface RunMember {
  readonly member: Member;
  /** False where the member only lies between two wanted ones; its contents are skipped. */
  readonly wanted: boolean;
  /** Bytes of its contents that are here already; a run that starts inside a member resumes it. */
  readonly have: number;
}

/** Consecutive members that one request reads: bytes `from` up to and not including `to`. */
export interface Run {
  readonly from: number;
  readonly to: number;
  readonly members: readonly RunMember[];
}

/** Unwanted bytes that cost less to read through than another request. */
export const DEFAULT_GAP = 16 * 1024;

/**
 * Plans the reads that bring in the wanted NARs. `missing` has, for each wanted
 * member's name, how many of its bytes are held already. When every NAR is missing
 * the whole archive is read, narinfos and end included, and so checked. `gap` is in
 * bytes; Infinity makes one run, for mirrors without ranges. A run of more than one
 * member wants at most `limit` bytes, so that what it brings finds room.
 */
export function planRuns(
  contents: ArchiveContents,
  missing: ReadonlyMap<string, number>,
  gap: number = DEFAULT_GAP,
  limit = Infinity,
): Run[] {
  if (missing.size === 0) return [];
  const nars = contents.members.filter(({ body }) => body.kind === "nar");
  const whole = nars.every(({ name }) => missing.get(name) === 0);
  const runs: { from: number; to: number; members: RunMember[] }[] = [];
  let between: RunMember[] = [];
  let wantedBytes = 0;
  for (const member of whole ? contents.members : nars) {
    const have = whole ? 0 : missing.get(member.name);
    if (have === undefined) {
      between.push({ member, wanted: false, have: 0 });
      continue;
    }
    const dataOffset = member.headerOffset + TAR_BLOCK;
    const from = have > 0 ? dataOffset + have : member.headerOffset;
    const to = dataOffset + paddedSize(member.size);
    const run = runs.at(-1);
    // One run serves a mirror without ranges; what is held of a member in its middle is
    // then read again with it.
    const joins = (have === 0 || gap === Infinity) && wantedBytes + member.size <= limit;
    if (run && joins && member.headerOffset - run.to <= gap) {
      run.members.push(...between, { member, wanted: true, have: 0 });
      run.to = to;
      wantedBytes += member.size;
    } else {
      runs.push({ from, to, members: [{ member, wanted: true, have }] });
      wantedBytes = member.size;
    }
    between = [];
  }
  const last = runs.at(-1);
  if (whole && last) last.to = contents.size;
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

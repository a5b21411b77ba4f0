import type { ArchiveContents } from "../../core/formats/archive-index.ts";
import { entryOf, type Manifest, type ReleasedSystem } from "../../core/formats/manifest.ts";
import { downloadAfter } from "../../core/transfer/closure-plan.ts";

/** What one host downloads for a release: of archives, without the manifest and the index. */
export interface HostDownload {
  /** Store paths that it lacks. */
  readonly paths: number;
  readonly bytes: number;
}

/** What the index of a system's archive says, or null if it is not at hand. */
export type ContentsOf = (system: ReleasedSystem) => Promise<ArchiveContents | null>;

/**
 * What each host would download that has its system of the release before, and nothing else, by
 * hostname: by the plan that the host makes itself, deltas included. Hosts are left out that the
 * release before does not name, or whose indexes are not at hand.
 */
export async function hostDownloads(
  hosts: Readonly<Record<string, ReleasedSystem>>,
  before: Manifest | null,
  contentsOf: ContentsOf,
): Promise<Map<string, HostDownload>> {
  const downloads = new Map<string, HostDownload>();
  // Many hosts may have one system, so that each pair is read once.
  const known = new Map<string, HostDownload | null>();
  for (const [hostname, system] of Object.entries(hosts)) {
    const old = before && entryOf(before, hostname);
    if (!old) continue;
    const pair = `${old.archive.sha256} ${system.archive.sha256}`;
    const read = known.get(pair);
    const found = read === undefined ? await downloadBetween(contentsOf, old, system) : read;
    known.set(pair, found);
    if (found) downloads.set(hostname, found);
  }
  return downloads;
}

async function downloadBetween(
  contentsOf: ContentsOf,
  before: ReleasedSystem,
  after: ReleasedSystem,
): Promise<HostDownload | null> {
  if (before.toplevel === after.toplevel) return { paths: 0, bytes: 0 };
  const [old, next] = [await contentsOf(before), await contentsOf(after)];
  return old && next ? downloadAfter(next, old) : null;
}

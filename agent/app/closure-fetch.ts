import {
  isNarMember,
  readIndex,
  type ArchiveContents,
  type NarMember,
} from "../core/archive-index.ts";
import { PullError, toPullError, type ErrorCode } from "../core/errors.ts";
import { DEFAULT_GAP, bytesOf, planRuns, type Run } from "../core/fetch-plan.ts";
import { narFileName } from "../core/narinfo.ts";
import type { Disk, Log, Mirror, NixStore } from "../core/ports.ts";
import type { Release } from "../core/manifest.ts";
import type { Settings } from "../core/settings.ts";
import { STORE_DIRECTORY } from "../core/store-path.ts";
import { TAR_BLOCK } from "../core/tar-layout.ts";
import { ByteReader } from "../effects/byte-reader.ts";
import { Staging } from "../effects/staging.ts";

/** How far a fetch is, for progress. */
export interface FetchProgress {
  readonly received: number;
  readonly total: number;
}

export interface FetchTools {
  readonly settings: Settings;
  /** In the order in which they are to be tried. */
  readonly mirrors: readonly Mirror[];
  readonly store: NixStore;
  readonly disk: Disk;
  readonly log: Log;
  readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
  /** Hears how each mirror served an archive: null where it served what was asked. */
  readonly onArchiveRead?: ((mirror: string, error: PullError | null) => void) | undefined;
}

/** What a fetch moved. */
export interface FetchSummary {
  readonly paths: number;
  /** Paths that the store lacked. */
  readonly newPaths: number;
  /** Bytes of NARs that were downloaded. */
  readonly bytesReceived: number;
}

/**
 * Brings a release's closure into the store: reads the index, asks the store what it
 * lacks, reserves disk, reads the missing NARs from the first mirror that serves them,
 * and has Nix import them. What was staged before is used; what is refused is removed.
 */
export async function fetchClosure(
  release: Release,
  tools: FetchTools,
  signal?: AbortSignal,
): Promise<FetchSummary> {
  const { settings, store } = tools;
  const staging = new Staging(settings.paths.staging, release.archive.sha256);
  try {
    await staging.prepare();
    const contents =
      (await stagedIndex(release, staging, tools)) ??
      (await mirroredIndex(release, tools, signal, (bytes) => staging.writeIndex(bytes)));
    const paths = contents.narInfos.map(({ storePath }) => `${STORE_DIRECTORY}/${storePath}`);
    const invalid = new Set(await store.invalidPaths(paths));
    const wanted = wantedNars(contents, invalid);
    const missing = await staging.missing(wanted.values());
    await reserveDisk(storeBytes(contents, invalid), missingBytes(wanted, missing), tools);
    const bytesReceived = await readNars(release, contents, staging, wanted, tools, signal);
    if (invalid.size > 0) {
      await staging.writeNarInfos(contents);
      tools.log.info(`importing ${invalid.size} of ${paths.length} paths`, {
        newPaths: invalid.size,
      });
      await importWatched(staging.directory, release, tools, signal);
    }
    // The store has it now.
    await staging.remove();
    return { paths: paths.length, newPaths: invalid.size, bytesReceived };
  } catch (thrown) {
    const error = toPullError(thrown);
    const resumable = KEEPS_STAGING.has(error.code) && (await staging.holdsNars());
    if (!resumable) await staging.remove().catch(() => undefined);
    throw error;
  }
}

/** How often the disk is looked at while Nix imports; a fast one takes 100 MB in this time. */
const DISK_WATCH_MS = 100;

/**
 * Has Nix import the closure and stops it before the disk is full: a NAR may unpack to more
 * than its signed size, and Nix compares that only at the NAR's end. Since the signed sizes
 * and the reserve were there at the beginning, half a reserve says that they did not hold.
 * Throws DISK_FULL and what `importClosure` throws.
 */
async function importWatched(
  directory: string,
  release: Release,
  { store, disk, settings }: FetchTools,
  signal: AbortSignal | undefined,
): Promise<void> {
  const path = store.realPath(STORE_DIRECTORY);
  const floor = settings.limits.reserveBytes / 2;
  const full = new AbortController();
  const watch = setInterval(() => {
    disk.freeSpace(path).then(
      ({ free }) => {
        if (free < floor) full.abort();
      },
      () => undefined,
    );
  }, DISK_WATCH_MS);
  const either = signal ? AbortSignal.any([signal, full.signal]) : full.signal;
  try {
    await store.importClosure(directory, release.toplevel, either);
  } catch (cause) {
    if (!full.signal.aborted || signal?.aborted) throw cause;
    throw new PullError(
      "DISK_FULL",
      `${path}: the import was stopped when less than ${floor} bytes were left; either something ` +
        "else fills this disk, or the closure unpacks to more than it says",
      { cause },
    );
  } finally {
    clearInterval(watch);
  }
}

/** After these the download is resumed where it stopped; after all others it starts clean. */
const KEEPS_STAGING: ReadonlySet<ErrorCode> = new Set([
  "INTERRUPTED",
  "MIRROR_UNREACHABLE",
  "MIRROR_STATUS",
  "MIRROR_STALLED",
  "MIRROR_SLOW",
  "MIRROR_TLS",
  "TOOL_MISSING",
  "TOOL_TIMEOUT",
]);

/** The NAR members of the paths that the store lacks, by name. */
function wantedNars(
  contents: ArchiveContents,
  invalid: ReadonlySet<string>,
): Map<string, NarMember> {
  const names = new Set(
    contents.narInfos
      .filter(({ storePath }) => invalid.has(`${STORE_DIRECTORY}/${storePath}`))
      .map((info) => narFileName(info.fileSha256, info.compression)),
  );
  return new Map(
    contents.members
      .filter(isNarMember)
      .filter(({ name }) => names.has(name))
      .map((member) => [member.name, member]),
  );
}

/** The index that an earlier attempt left in staging, if it is still the right one. */
async function stagedIndex(
  release: Release,
  staging: Staging,
  { settings, log }: FetchTools,
): Promise<ArchiveContents | null> {
  const staged = await staging.readIndex();
  if (!staged) return null;
  try {
    return readIndex(staged, release, settings.storeKeys);
  } catch (error) {
    log.debug(`the staged index is read again: ${toPullError(error).message}`);
    return null;
  }
}

/** Reads and checks the index from the first mirror that gives the right one. */
async function mirroredIndex(
  release: Release,
  tools: FetchTools,
  signal: AbortSignal | undefined,
  keep: (compressed: Uint8Array) => Promise<void>,
): Promise<ArchiveContents> {
  const { sha256, index } = release.archive;
  const range = { from: TAR_BLOCK, to: TAR_BLOCK + index.size };
  return fromMirrors(tools, async (mirror) => {
    const reader = new ByteReader(mirror.readArchive(sha256, range, signal));
    try {
      const compressed = await reader.take(index.size);
      const contents = readIndex(compressed, release, tools.settings.storeKeys);
      await keep(compressed);
      return contents;
    } finally {
      await reader.close();
    }
  });
}

/** What bringing in a release would take. */
export interface FetchPreview extends Omit<FetchSummary, "bytesReceived"> {
  /** Bytes to download, with nothing staged yet. */
  readonly downloadBytes: number;
  /** Bytes by which the store would grow. */
  readonly storeBytes: number;
}

/** Says what `fetchClosure` would move, and refuses as it would; writes nothing. */
export async function previewFetch(
  release: Release,
  tools: FetchTools,
  signal?: AbortSignal,
): Promise<FetchPreview> {
  const contents = await mirroredIndex(release, tools, signal, () => Promise.resolve());
  const paths = contents.narInfos.map(({ storePath }) => `${STORE_DIRECTORY}/${storePath}`);
  const invalid = new Set(await tools.store.invalidPaths(paths));
  const wanted = wantedNars(contents, invalid);
  const missing = new Map([...wanted.keys()].map((name) => [name, 0]));
  await reserveDisk(storeBytes(contents, invalid), missingBytes(wanted, missing), tools);
  return {
    paths: paths.length,
    newPaths: invalid.size,
    downloadBytes: bytesOf(planRuns(contents, missing)),
    storeBytes: storeBytes(contents, invalid),
  };
}

/** Bytes that the invalid paths will take in the store. */
function storeBytes(contents: ArchiveContents, invalid: ReadonlySet<string>): number {
  return contents.narInfos
    .filter(({ storePath }) => invalid.has(`${STORE_DIRECTORY}/${storePath}`))
    .reduce((sum, { narSize }) => sum + narSize, 0);
}

/** Bytes that staging still has to take. */
function missingBytes(
  wanted: ReadonlyMap<string, NarMember>,
  missing: ReadonlyMap<string, number>,
): number {
  let bytes = 0;
  for (const [name, have] of missing) bytes += (wanted.get(name)?.size ?? 0) - have;
  return bytes;
}

/** Refuses before anything is downloaded where it could not be brought to its end. */
async function reserveDisk(
  forStore: number,
  forStaging: number,
  { settings, store, disk }: FetchTools,
): Promise<void> {
  const needs = [
    { path: settings.paths.staging, bytes: forStaging, what: "staging" },
    { path: store.realPath(STORE_DIRECTORY), bytes: forStore, what: "the store" },
  ];
  const reserve = settings.limits.reserveBytes;
  const byFileSystem = new Map<string, { free: number; bytes: number; what: string[] }>();
  for (const need of needs) {
    const { free, fileSystem } = await disk.freeSpace(need.path);
    const sum = byFileSystem.get(fileSystem) ?? { free, bytes: 0, what: [] };
    sum.bytes += need.bytes;
    sum.what.push(`${need.what} (${need.path})`);
    byFileSystem.set(fileSystem, sum);
  }
  for (const { free, bytes, what } of byFileSystem.values()) {
    if (bytes > 0 && free < bytes + reserve) {
      throw new PullError(
        "DISK_FULL",
        `${what.join(" and ")}: expected ${bytes} bytes free and ${reserve} left over, found ${free}`,
      );
    }
  }
}

/** Reads the missing NARs into staging; gives the bytes that came over the wire. */
async function readNars(
  release: Release,
  contents: ArchiveContents,
  staging: Staging,
  wanted: ReadonlyMap<string, NarMember>,
  tools: FetchTools,
  signal: AbortSignal | undefined,
): Promise<number> {
  let received = 0;
  await fromMirrors(tools, async (mirror) => {
    const plan = async (ranges: boolean): Promise<{ runs: Run[]; total: number }> => {
      const missing = await staging.missing(wanted.values());
      const runs = planRuns(contents, missing, ranges ? DEFAULT_GAP : Infinity);
      return { runs, total: received + bytesOf(runs) };
    };
    let { ranges } = mirror;
    let { runs, total } = await plan(ranges);
    for (let run = runs.shift(); run; run = runs.shift()) {
      const source = mirror.readArchive(release.archive.sha256, run, signal);
      await staging.take(run, contents, source, (count) => {
        received += count;
        tools.onProgress?.({ received, total });
      });
      if (mirror.ranges !== ranges) {
        // This mirror always reads from the start: let one read serve all that is left.
        ranges = mirror.ranges;
        ({ runs, total } = await plan(ranges));
      }
    }
  });
  return received;
}

/** What another mirror may do better; everything else would fail there too. */
function isMirrorsFault(code: ErrorCode): boolean {
  switch (code) {
    case "MIRROR_UNREACHABLE":
    case "MIRROR_NOT_FOUND":
    case "MIRROR_STATUS":
    case "MIRROR_STALLED":
    case "MIRROR_SLOW":
    case "MIRROR_TLS":
    case "MIRROR_REDIRECT":
    case "MIRROR_OVERSIZE":
    case "ARCHIVE_TRUNCATED":
    case "ARCHIVE_CORRUPT":
    case "ARCHIVE_MEMBER":
    case "NARINFO_MISMATCH":
    case "IO_FAILED": // A stick that was pulled out,
    case "PERMISSION_DENIED": // or one that may not be read.
      return true;
    default:
      return false;
  }
}

/** Tries the mirrors in order. Throws the last one's error, naming what all of them did. */
async function fromMirrors<T>(
  { mirrors, log, onArchiveRead }: FetchTools,
  read: (mirror: Mirror) => Promise<T>,
): Promise<T> {
  const failures: string[] = [];
  for (const [at, mirror] of mirrors.entries()) {
    try {
      const result = await read(mirror);
      onArchiveRead?.(mirror.address, null);
      return result;
    } catch (thrown) {
      const error = toPullError(thrown);
      if (!isMirrorsFault(error.code)) throw error;
      onArchiveRead?.(mirror.address, error);
      failures.push(`${mirror.address}: ${error.message}`);
      if (at === mirrors.length - 1) {
        throw failures.length === 1
          ? error
          : new PullError(error.code, failures.join("; "), { cause: error });
      }
      log.warn(`${mirror.address}: ${error.message}; the next mirror is tried`, {
        code: error.code,
      });
    }
  }
  throw new PullError("MIRROR_UNREACHABLE", "no mirror is configured");
}

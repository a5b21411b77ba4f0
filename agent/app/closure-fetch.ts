import {
  narMembersOf,
  readIndex,
  type ArchiveContents,
  type NarMember,
} from "../core/archive-index.ts";
import { PullError, toPullError, type ErrorCode } from "../core/errors.ts";
import { DEFAULT_GAP, bytesOf, planRuns, wantedBytesOf, type Run } from "../core/fetch-plan.ts";
import { topmost, type QueuedPath } from "../core/import-queue.ts";
import { narFileName, type NarInfo } from "../core/narinfo.ts";
import type { Disk, GcRoots, Log, Mirror, NixStore } from "../core/ports.ts";
import type { Release } from "../core/manifest.ts";
import type { Settings } from "../core/settings.ts";
import { STORE_DIRECTORY } from "../core/store-path.ts";
import { TAR_BLOCK } from "../core/tar-layout.ts";
import { ByteReader } from "../effects/byte-reader.ts";
import { Staging } from "../effects/staging.ts";
import { ImportStream } from "./import-stream.ts";

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
  readonly roots: GcRoots;
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

/** Name of the garbage collector roots that hold the imported part of an unfinished closure. */
export const IMPORTED_ROOTS = "pending-paths";

/**
 * Brings a release's closure into the store: reads the index, asks the store what it
 * lacks, reserves disk, reads the missing NARs from the first mirror that serves them,
 * and has Nix import them while the rest is on its way. What was staged or imported
 * before is used; what is refused is removed.
 */
export async function fetchClosure(
  release: Release,
  tools: FetchTools,
  signal?: AbortSignal,
): Promise<FetchSummary> {
  const { settings, store, roots } = tools;
  const staging = new Staging(settings.paths.staging, release.archive.sha256);
  // An import that fails ends the download too.
  const stop = new AbortController();
  let imports: ImportStream | null = null;
  try {
    await staging.prepare();
    const contents =
      (await stagedIndex(release, staging, tools)) ??
      (await mirroredIndex(release, tools, signal, (bytes) => staging.writeIndex(bytes)));
    const paths = contents.narInfos.map(({ storePath }) => `${STORE_DIRECTORY}/${storePath}`);
    const invalid = new Set(await store.invalidPaths(paths));
    const wanted = wantedNars(contents, invalid);
    const missing = await staging.missing(wanted.values());
    const budget = stagingBudget(release, settings);
    await reserveDisk(
      storeBytes(contents, invalid),
      Math.min(missingBytes(wanted, missing), largest(wanted, budget)),
      tools,
    );
    const all = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    imports = importStream(contents, invalid, budget, staging, tools, all, () => {
      stop.abort();
    });
    // What is here from before takes its place first.
    for (const { name, size } of wanted.values()) {
      if (!staging.isComplete(name)) continue;
      await imports.reserve(size);
      imports.arrived(name, size);
    }
    const bytesReceived = await readNars(contents, staging, wanted, imports, tools, all);
    await imports.finish();
    // The store has it now, and the root of the whole closure holds it.
    await staging.remove();
    await roots.release(IMPORTED_ROOTS);
    return { paths: paths.length, newPaths: invalid.size, bytesReceived };
  } catch (thrown) {
    // The import's own error, where it is what ended the download.
    const error = toPullError((await imports?.settle()) ?? thrown);
    const resumable = KEEPS_STAGING.has(error.code);
    if (!resumable || !(await staging.holdsNars())) await staging.remove().catch(() => undefined);
    // What is refused, or fills the disk, is left to the garbage collector.
    if (!resumable) await roots.release(IMPORTED_ROOTS).catch(() => undefined);
    throw error;
  }
}

/** By default staging takes at most this part of the closure. */
const DEFAULT_STAGING_PART = 1 / 16;

/** Smaller imports would cost more in processes than they save in disk. */
const MIN_STAGING_BYTES = 4 * 1024 ** 2;

/** Bytes that staged NARs may take together, but for one that is larger by itself. */
function stagingBudget(release: Release, { limits }: Settings): number {
  const part = Math.ceil(release.closureSize * DEFAULT_STAGING_PART);
  return Math.max(limits.stagingBytes === 0 ? part : limits.stagingBytes, MIN_STAGING_BYTES);
}

/** The most that staging will take: the budget, or one NAR that is larger. */
function largest(wanted: ReadonlyMap<string, NarMember>, budget: number): number {
  let bytes = budget;
  for (const { size } of wanted.values()) bytes = Math.max(bytes, size);
  return bytes;
}

/** Imports the invalid paths as their NARs arrive, each batch held by roots of its own. */
function importStream(
  contents: ArchiveContents,
  invalid: ReadonlySet<string>,
  budget: number,
  staging: Staging,
  { store, roots, log }: FetchTools,
  signal: AbortSignal,
  onFailure: () => void,
): ImportStream {
  const infos = new Map<string, NarInfo>();
  for (const info of contents.narInfos) {
    const path = `${STORE_DIRECTORY}/${info.storePath}`;
    if (invalid.has(path)) infos.set(path, info);
  }
  const infosOf = (paths: readonly QueuedPath[]): NarInfo[] =>
    paths.flatMap(({ path }) => infos.get(path) ?? []);
  return new ImportStream({
    budget,
    paths: [...infos].map(([path, info]) => ({
      path,
      file: narFileName(info.fileSha256, info.compression),
      bytes: info.fileSize,
      references: info.references
        .map((name) => `${STORE_DIRECTORY}/${name}`)
        .filter((reference) => infos.has(reference)),
    })),
    async importPaths(paths) {
      log.debug(`importing ${paths.length} of ${infos.size} paths`);
      // Before they are valid, so that no collection can come in between.
      await roots.holdAlso(IMPORTED_ROOTS, topmost(paths));
      await staging.writeNarInfos(infosOf(paths));
      await store.importPaths(
        staging.directory,
        paths.map(({ path }) => path),
        signal,
      );
    },
    discard: (paths, files) =>
      staging.discard(
        infosOf(paths),
        files.map(({ file }) => file),
      ),
    onFailure,
  });
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
    narMembersOf(contents)
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
  const budget = stagingBudget(release, tools.settings);
  await reserveDisk(
    storeBytes(contents, invalid),
    Math.min(missingBytes(wanted, missing), largest(wanted, budget)),
    tools,
  );
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

/**
 * Reads the missing NARs into staging, no faster than the imports make room; gives the
 * bytes that came over the wire.
 */
async function readNars(
  contents: ArchiveContents,
  staging: Staging,
  wanted: ReadonlyMap<string, NarMember>,
  imports: ImportStream,
  tools: FetchTools,
  signal: AbortSignal,
): Promise<number> {
  let received = 0;
  /** NARs that came whole: staged, or imported and gone from staging again. */
  const done = new Set([...wanted.keys()].filter((name) => staging.isComplete(name)));
  await fromMirrors(tools, async (mirror) => {
    const plan = async (ranges: boolean): Promise<{ runs: Run[]; total: number }> => {
      const left = [...wanted.values()].filter(({ name }) => !done.has(name));
      const missing = await staging.missing(left);
      const runs = ranges
        ? planRuns(contents, missing, DEFAULT_GAP, imports.batchBytes)
        : planRuns(contents, missing, Infinity);
      return { runs, total: received + bytesOf(runs) };
    };
    let { ranges } = mirror;
    let { runs, total } = await plan(ranges);
    for (let run = runs.shift(); run; run = runs.shift()) {
      // A request that fits is never left waiting for room; one that has to bring everything
      // waits before each NAR.
      const reservesWhole = ranges;
      let reserved = reservesWhole ? wantedBytesOf(run) : 0;
      await imports.reserve(reserved);
      const source = mirror.readArchive(run.archive, run, signal);
      try {
        await staging.take(run, contents, source, {
          onBytes: (count) => {
            received += count;
            tools.onProgress?.({ received, total });
          },
          onBegin: async ({ size }) => {
            if (reservesWhole) return;
            await imports.reserve(size);
            reserved += size;
          },
          onComplete: ({ name, size }) => {
            done.add(name);
            reserved -= size;
            imports.arrived(name, size);
          },
        });
      } finally {
        imports.cancel(reserved);
      }
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

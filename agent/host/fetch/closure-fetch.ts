import {
  narMembersOf,
  type ArchiveContents,
  type NarMember,
} from "../../core/formats/archive-index.ts";
import { PullError, toPullError, type ErrorCode } from "../../core/errors.ts";
import {
  DEFAULT_GAP,
  bytesOf,
  planRuns,
  wantedBytesOf,
  type Run,
} from "../../core/transfer/fetch-plan.ts";
import { topmost, type QueuedPath } from "../../core/transfer/import-queue.ts";
import { narFileName, type NarInfo } from "../../core/formats/narinfo.ts";
import type {
  ApplyIndexPatch,
  DeltaMaker,
  Disk,
  GcRoots,
  IndexCache,
  Log,
  Mirror,
  NixStore,
  Staging,
  StagingArea,
} from "../../core/ports.ts";
import { readRun } from "../../core/transfer/run-reader.ts";
import type { Release } from "../../core/formats/manifest.ts";
import type { Settings } from "../../core/settings.ts";
import { STORE_DIRECTORY } from "../../core/formats/store-path.ts";
import { makeNars, planDeltas, type PlannedDelta } from "./delta-fetch.ts";
import { DeltaReader } from "./delta-reader.ts";
import { ImportStream } from "./import-stream.ts";
import { IMPORTED_ROOTS, mendImported, releaseImported } from "./imported-paths.ts";
import { fetchIndex } from "./index-fetch.ts";
import { withFailover } from "../poll/mirror-failover.ts";

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
  readonly staging: StagingArea;
  readonly indexes: IndexCache;
  readonly applyIndexPatch: ApplyIndexPatch;
  readonly deltas: DeltaMaker;
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
  /** Paths that were made out of older ones. */
  readonly deltasUsed: number;
  /** Deltas that did not give what was signed, so that the path was downloaded whole. */
  readonly deltasFailed: number;
}

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
  const { settings, store } = tools;
  const staging = tools.staging.open(release.archive.sha256);
  // An import that fails ends the download too.
  const stop = new AbortController();
  let imports: ImportStream | null = null;
  try {
    await staging.prepare();
    await mendImported(tools);
    const { contents, json } = await fetchIndex(release, staging, tools, signal);
    const paths = contents.narInfos.map(({ storePath }) => `${STORE_DIRECTORY}/${storePath}`);
    const invalid = new Set(await store.invalidPaths(paths));
    const deltas = await planDeltas(contents, invalid, tools);
    const wanted = wantedNars(contents, invalid);
    const missing = await staging.missing(wanted.values());
    const budget = stagingBudget(release, settings);
    await reserveDisk(
      storeBytes(contents, invalid),
      mostStaged(wanted, missing, deltas, budget),
      tools,
    );
    const all = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    imports = importStream(contents, invalid, deltas, budget, staging, tools, all, () => {
      stop.abort();
    });
    // What is here from before takes its place first.
    const planned = new Set(deltaNars(contents, deltas));
    for (const { name, size } of wanted.values()) {
      if (!staging.isComplete(name) || planned.has(name)) continue;
      await imports.reserve(size);
      imports.arrived(name, size);
    }
    const read = await readNars(contents, staging, wanted, deltas, imports, tools, all);
    await imports.finish();
    // The store has it now, and the root of the whole closure holds it.
    await releaseImported(tools);
    await tools.staging.remove();
    // What the next release's patch is applied to; without it that costs a whole index.
    await tools.indexes.keep(release.archive.index.sha256, json).catch((error: unknown) => {
      tools.log.debug(`the index is not kept: ${toPullError(error).message}`);
    });
    return { paths: paths.length, newPaths: invalid.size, ...read };
  } catch (thrown) {
    // The import's own error, where it is what ended the download.
    const error = toPullError((await imports?.settle()) ?? thrown);
    const resumable = KEEPS_STAGING.has(error.code);
    if (!resumable || !(await staging.holdsNars()))
      await tools.staging.remove().catch(() => undefined);
    // What is refused, or fills the disk, is left to the garbage collector.
    if (!resumable) await releaseImported(tools).catch(() => undefined);
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

/**
 * The most bytes that staging will take at once: the budget, or one NAR that is larger,
 * or one delta's base and result; less where that is all there is.
 */
function mostStaged(
  wanted: ReadonlyMap<string, NarMember>,
  missing: ReadonlyMap<string, number>,
  deltas: ReadonlyMap<string, PlannedDelta>,
  budget: number,
): number {
  const pieces = [
    ...[...wanted.values()].map(({ size }) => size),
    ...[...deltas.values()].map(({ narInfo }) => BASE_AND_RESULT * narInfo.narSize),
  ];
  let most = budget;
  let all = missingBytes(wanted, missing);
  for (const bytes of pieces) most = Math.max(most, bytes);
  for (const { narInfo } of deltas.values()) all += BASE_AND_RESULT * narInfo.narSize;
  return Math.min(all, most);
}

/** A delta's base lies beside the NAR for a while; it is about as large. */
const BASE_AND_RESULT = 2;

/** Imports the invalid paths as their NARs arrive, each batch held by roots of its own. */
function importStream(
  contents: ArchiveContents,
  invalid: ReadonlySet<string>,
  deltas: ReadonlyMap<string, PlannedDelta>,
  budget: number,
  staging: Staging,
  tools: FetchTools,
  signal: AbortSignal,
  onFailure: () => void,
): ImportStream {
  const { roots, log } = tools;
  const infos = new Map<string, NarInfo>();
  for (const info of contents.narInfos) {
    const path = `${STORE_DIRECTORY}/${info.storePath}`;
    if (invalid.has(path)) infos.set(path, info);
  }
  // In the form in which the NAR came: as the archive has it, or made by a delta.
  const infosOf = (paths: readonly QueuedPath[]): NarInfo[] =>
    paths.flatMap(({ path, file }) => {
      const made = deltas.get(path);
      return (made?.file === file ? made.narInfo : infos.get(path)) ?? [];
    });
  return new ImportStream({
    budget,
    paths: [...infos].map(([path, info]) => ({
      path,
      file: deltas.get(path)?.file ?? narFileName(info.fileSha256, info.compression),
      bytes: deltas.has(path) ? info.narSize : info.fileSize,
      references: info.references
        .map((name) => `${STORE_DIRECTORY}/${name}`)
        .filter((reference) => infos.has(reference)),
    })),
    async importPaths(paths) {
      log.debug(`importing ${paths.length} of ${infos.size} paths`);
      // Before they are valid, so that no collection can come in between.
      await roots.holdAlso(IMPORTED_ROOTS, topmost(paths));
      await staging.writeNarInfos(infosOf(paths));
      await importWatched(
        staging.directory,
        paths.map(({ path }) => path),
        tools,
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

/** How often the disk is looked at while Nix imports; a fast one takes 100 MB in this time. */
const DISK_WATCH_MS = 100;

/**
 * Has Nix import paths and stops it before the disk is full: a NAR may unpack to more
 * than its signed size, and Nix compares that only at the NAR's end. Since the signed sizes
 * and the reserve were there at the beginning, half a reserve says that they did not hold.
 * Throws DISK_FULL and what `importPaths` throws.
 */
async function importWatched(
  directory: string,
  paths: readonly string[],
  { store, disk, settings }: FetchTools,
  signal: AbortSignal,
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
  try {
    await store.importPaths(directory, paths, AbortSignal.any([signal, full.signal]));
  } catch (cause) {
    if (!full.signal.aborted || signal.aborted) throw cause;
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
  "MIRROR_ABSENT",
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

/** What bringing in a release would take. */
export interface FetchPreview extends Pick<FetchSummary, "paths" | "newPaths"> {
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
  const { contents } = await fetchIndex(release, null, tools, signal);
  const paths = contents.narInfos.map(({ storePath }) => `${STORE_DIRECTORY}/${storePath}`);
  const invalid = new Set(await tools.store.invalidPaths(paths));
  const wanted = wantedNars(contents, invalid);
  const missing = new Map([...wanted.keys()].map((name) => [name, 0]));
  const budget = stagingBudget(release, tools.settings);
  const deltas = await planDeltas(contents, invalid, tools);
  await reserveDisk(
    storeBytes(contents, invalid),
    mostStaged(wanted, missing, deltas, budget),
    tools,
  );
  for (const name of deltaNars(contents, deltas)) missing.delete(name);
  let downloadBytes = bytesOf(planRuns(contents, missing));
  for (const { delta } of deltas.values()) downloadBytes += delta.size;
  return {
    paths: paths.length,
    newPaths: invalid.size,
    downloadBytes,
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

/** Names of the NAR members that deltas stand for. */
function deltaNars(contents: ArchiveContents, deltas: ReadonlyMap<string, PlannedDelta>): string[] {
  return contents.narInfos
    .filter(({ storePath }) => deltas.has(`${STORE_DIRECTORY}/${storePath}`))
    .map((info) => narFileName(info.fileSha256, info.compression));
}

/** Missing paths that are brought in together, in topological order. */
interface Portion {
  readonly deltas: PlannedDelta[];
  /** Names of NAR members. */
  readonly nars: Set<string>;
}

/**
 * Divides what is missing into portions that find room one after the other, so that
 * deltas and whole NARs come in the order in which they can be imported. Without deltas
 * there is one portion, read in the order of the archives.
 */
function portionsOf(
  contents: ArchiveContents,
  wanted: ReadonlyMap<string, NarMember>,
  deltas: ReadonlyMap<string, PlannedDelta>,
  bytes: number,
): Portion[] {
  if (deltas.size === 0) return [{ deltas: [], nars: new Set(wanted.keys()) }];
  const portions: Portion[] = [];
  let size = Infinity;
  for (const info of contents.narInfos) {
    const name = narFileName(info.fileSha256, info.compression);
    if (!wanted.has(name)) continue;
    const delta = deltas.get(`${STORE_DIRECTORY}/${info.storePath}`);
    const added = delta ? info.narSize : info.fileSize;
    if (size + added > bytes) {
      portions.push({ deltas: [], nars: new Set() });
      size = 0;
    }
    size += added;
    if (delta) portions.at(-1)?.deltas.push(delta);
    else portions.at(-1)?.nars.add(name);
  }
  return portions;
}

type ReadSummary = Pick<FetchSummary, "bytesReceived" | "deltasUsed" | "deltasFailed">;

/**
 * Reads the missing NARs into staging, or makes them by deltas, no faster than the
 * imports make room; gives the bytes that came over the wire.
 */
async function readNars(
  contents: ArchiveContents,
  staging: Staging,
  wanted: ReadonlyMap<string, NarMember>,
  deltas: ReadonlyMap<string, PlannedDelta>,
  imports: ImportStream,
  tools: FetchTools,
  signal: AbortSignal,
): Promise<ReadSummary> {
  const summary = { bytesReceived: 0, deltasUsed: 0, deltasFailed: 0 };
  const byDelta = new Set(deltaNars(contents, deltas));
  /** NARs that came whole: staged, or imported and gone from staging again. */
  const done = new Set(
    [...wanted.keys()].filter((name) => staging.isComplete(name) && !byDelta.has(name)),
  );
  /** Paths that are not to be made by a delta any more: they were, or it failed. */
  const settled = new Set<string>();
  const members = new Map(
    contents.narInfos.map((info) => [
      `${STORE_DIRECTORY}/${info.storePath}`,
      narFileName(info.fileSha256, info.compression),
    ]),
  );
  const memberName = (path: string): string => members.get(path) ?? "";
  const giveUp = (planned: PlannedDelta, nars: Set<string>): void => {
    const name = memberName(planned.path);
    settled.add(planned.path);
    imports.replace(planned.path, name, wanted.get(name)?.size ?? 0);
    byDelta.delete(name);
    nars.add(name);
  };

  await withFailover(tools, async (mirror) => {
    const portions = portionsOf(contents, wanted, deltas, imports.batchBytes);
    let total = 0;
    for (const { nars, deltas: some } of portions) {
      for (const name of nars) if (!done.has(name)) total += wanted.get(name)?.size ?? 0;
      for (const { path, delta } of some) if (!settled.has(path)) total += delta.size;
    }
    total += summary.bytesReceived;
    const onBytes = (count: number): void => {
      summary.bytesReceived += count;
      tools.onProgress?.({ received: summary.bytesReceived, total });
    };
    const pending = portions.flatMap(({ deltas: some }) =>
      some.filter(({ path }) => mirror.ranges && !settled.has(path)),
    );
    const reader = new DeltaReader(
      pending.map(({ delta }) => delta),
      mirror,
      { signal, onBytes },
    );
    try {
      for (const portion of portions) {
        await makePortion(mirror, portion, reader);
        await readPortion(mirror, portion.nars, { onBytes, done });
      }
    } finally {
      await reader.close();
    }
  });
  return summary;

  async function makePortion(mirror: Mirror, portion: Portion, reader: DeltaReader): Promise<void> {
    for (const planned of portion.deltas) {
      // By now it is known whether that worked; a mirror without ranges is no place for it.
      const name = memberName(planned.path);
      if (settled.has(planned.path) && !byDelta.has(name)) portion.nars.add(name);
      else if (!mirror.ranges && !settled.has(planned.path)) giveUp(planned, portion.nars);
    }
    const roomOf = ({ narInfo }: PlannedDelta): number => BASE_AND_RESULT * narInfo.narSize;
    await makeNars(
      portion.deltas.filter(({ path }) => !settled.has(path)),
      {
        ...{ reader, staging: staging.directory, tools, signal },
        hasRoom: (planned) => imports.hasRoom(roomOf(planned)),
        reserve: (planned) => imports.reserve(roomOf(planned)),
        cancel(planned) {
          imports.cancel(roomOf(planned));
        },
        onMade(planned) {
          const { narSize } = planned.narInfo;
          settled.add(planned.path);
          summary.deltasUsed++;
          imports.cancel(roomOf(planned) - narSize);
          imports.arrived(planned.file, narSize);
        },
        onFailed(planned, error) {
          summary.deltasFailed++;
          tools.log.warn(`${planned.path} is downloaded whole: ${error.message}`, {
            code: error.code,
          });
          giveUp(planned, portion.nars);
        },
      },
    );
  }

  async function readPortion(
    mirror: Mirror,
    names: ReadonlySet<string>,
    { onBytes, done }: { onBytes: (count: number) => void; done: Set<string> },
  ): Promise<void> {
    const plan = async (ranges: boolean): Promise<Run[]> => {
      const left = [...wanted.values()].filter(({ name }) => names.has(name) && !done.has(name));
      const missing = await staging.missing(left);
      for (const { name, size } of left) {
        // Staged by an earlier attempt, for a path that a delta was tried for meanwhile.
        if (missing.has(name)) continue;
        await imports.reserve(size);
        done.add(name);
        imports.arrived(name, size);
      }
      return ranges
        ? planRuns(contents, missing, DEFAULT_GAP, imports.batchBytes)
        : planRuns(contents, missing, Infinity);
    };
    let { ranges } = mirror;
    let runs = await plan(ranges);
    for (let run = runs.shift(); run; run = runs.shift()) {
      // A request that fits is never left waiting for room; one that has to bring everything
      // waits before each NAR.
      const reservesWhole = ranges;
      let reserved = reservesWhole ? wantedBytesOf(run) : 0;
      await imports.reserve(reserved);
      const source = mirror.readArchive(run.archive, run, signal);
      try {
        await readRun(run, contents, source, async (member, have, pieces) => {
          const { name, size } = member;
          if (!reservesWhole) {
            await imports.reserve(size);
            reserved += size;
          }
          await staging.writeNar(member, have, pieces, onBytes);
          done.add(name);
          reserved -= size;
          imports.arrived(name, size);
        });
      } finally {
        imports.cancel(reserved);
      }
      if (mirror.ranges !== ranges) {
        // This mirror always reads from the start: let one read serve all that is left.
        ranges = mirror.ranges;
        runs = await plan(ranges);
      }
    }
  }
}

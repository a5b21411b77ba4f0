import { toPullError, type ErrorCode, type PullError } from "../../core/errors.ts";
import type { ArchiveContents } from "../../core/formats/archive-index.ts";
import type { Release } from "../../core/formats/manifest.ts";
import type { FailedRepair, FetchSummary, Staging } from "../../core/ports.ts";
import { requireSpace, stagingBudget } from "./disk-space.ts";
import { mendImported, releaseImported } from "./imported-paths.ts";
import { importStreamOf } from "./imports.ts";
import type { ImportStream } from "./import-stream.ts";
import { makeRoom } from "./make-room.ts";
import { absolute, type FetchPlan } from "../../core/transfer/closure-plan.ts";
import { planFetch } from "./plan.ts";
import { readIndex, type CheckedIndex, type ClosurePlace } from "./read-index.ts";
import { readNars, type ReadSummary } from "./read-nars.ts";
import type { FetchTools } from "./tools.ts";

/** How a closure is fetched. */
export interface FetchOptions {
  readonly signal?: AbortSignal | undefined;
  /** Whether to compare what the store has of it already with its hashes. That reads all of it. */
  readonly verify?: boolean | undefined;
}

/**
 * Brings a release's closure into the store: reads the index, asks the store what it lacks,
 * makes sure of the disk, reads the missing NARs from the first mirror that serves them, and
 * has Nix import them while the rest is on its way. What the store has of it and is damaged is
 * mended. Uses what an earlier attempt staged or imported. After an error that another attempt may
 * mend, what was staged stays, and `onAdvance` hears if that is more than before; after every other
 * error it is removed. Throws the codes of mirrors, archives, imports and disks, and
 * INTERRUPTED.
 */
export async function fetchClosure(
  release: Release,
  tools: FetchTools,
  { signal, verify = false }: FetchOptions = {},
): Promise<FetchSummary> {
  return withStaging(release, tools, async (staging) => {
    const index = await readIndex(release, staging, tools, signal);
    let plan = await planWhole(index.contents, tools, { signal, verify });
    if (await makeRoom(plan, { release, staging, tools, signal })) {
      // Something of the closure may have been garbage.
      plan = await planWhole(index.contents, tools, { signal, verify: false });
    }
    const read = await bringIn(plan, { release, staging, tools, signal });
    await releaseImported(tools);
    await tools.staging.remove();
    await keepIndex(release, index, tools);
    return { paths: index.contents.narInfos.length, newPaths: plan.paths.length, ...read };
  });
}

/**
 * Brings those of these paths that a release has back into the store, damaged ones too; `damaged` are
 * the valid ones. If one of them cannot be had as it must be, each is tried by itself, so that it does
 * not keep the others away; gives why, for those that were not brought back. Throws as `fetchClosure`
 * what concerns all of them.
 */
export async function repairPaths(
  release: ClosurePlace,
  { paths, damaged }: { paths: readonly string[]; damaged: readonly string[] },
  tools: FetchTools,
  signal?: AbortSignal,
): Promise<readonly FailedRepair[]> {
  return withStaging(release, tools, async (staging) => {
    const { contents } = await readIndex(release, staging, tools, signal);
    const known = await knownDamage(contents, damaged, tools);
    const missing = paths.filter((path) => !damaged.includes(path));
    const bring = async (lost: { missing: readonly string[]; known: readonly string[] }) => {
      const only = new Set([...neededBy(lost.missing, contents), ...lost.known]);
      const plan = await planFetch(contents, tools, { damaged: lost.known, only });
      if (plan.paths.length > 0) await bringIn(plan, { release, staging, tools, signal });
    };
    const failed: FailedRepair[] = [];
    const all = [
      ...missing.map((path) => ({ path, missing: [path], known: [] })),
      ...known.map((path) => ({ path, missing: [], known: [path] })),
    ];
    const tryEach = async (): Promise<void> => {
      for (const { path, ...lost } of all) {
        try {
          await bring(lost);
        } catch (thrown) {
          const error = toPullError(thrown);
          if (!isOnePaths(error)) throw error;
          failed.push({ path, error });
        }
      }
    };
    try {
      await bring({ missing, known });
    } catch (thrown) {
      const error = toPullError(thrown);
      if (!isOnePaths(error)) throw error;
      tools.log.warn(`each path is repaired by itself, since one failed: ${error.message}`);
      await tryEach();
    }
    await releaseImported(tools);
    await tools.staging.remove();
    return failed;
  });
}

/** Whether an error may be about one path alone: its bytes, or what Nix says about them. */
function isOnePaths({ code }: PullError): boolean {
  return ONE_PATHS.has(code);
}

const ONE_PATHS: ReadonlySet<ErrorCode> = new Set([
  "ARCHIVE_TRUNCATED",
  "ARCHIVE_PARTIAL",
  "ARCHIVE_CORRUPT",
  "ARCHIVE_MEMBER",
  "NARINFO_MISMATCH",
  "IMPORT_FAILED",
]);

/** These paths, and all that they refer to: Nix takes no path whose references are not valid. */
function neededBy(paths: readonly string[], { narInfos }: ArchiveContents): Set<string> {
  const references = new Map(
    narInfos.map(({ storePath, references }) => [absolute(storePath), references.map(absolute)]),
  );
  const needed = new Set<string>();
  const queue = [...paths];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    if (needed.has(path)) continue;
    needed.add(path);
    queue.push(...(references.get(path) ?? []));
  }
  return needed;
}

/** Prepares staging for work, and leaves it as a later attempt can use it if the work fails. */
async function withStaging<T>(
  release: ClosurePlace,
  tools: FetchTools,
  work: (staging: Staging) => Promise<T>,
): Promise<T> {
  const staging = tools.staging.open(release.archive.sha256);
  try {
    await staging.prepare();
    await mendImported(tools);
    return await work(staging);
  } catch (thrown) {
    const error = toPullError(thrown);
    await leaveFailed(error, staging, tools);
    throw error;
  }
}

/** A plan for the whole closure, with what is damaged of it as far as that is looked at. */
async function planWhole(
  contents: ArchiveContents,
  tools: FetchTools,
  { signal, verify = false }: FetchOptions,
): Promise<FetchPlan> {
  const { repair, log } = tools;
  const plan = await planFetch(contents, tools);
  const missing = new Set(plan.paths.map(({ path }) => path));
  const valid = contents.narInfos
    .map(({ storePath }) => absolute(storePath))
    .filter((path) => !missing.has(path));
  const found = verify ? await repair.damaged(valid, { signal }) : await repair.absent(valid);
  const damaged = await knownDamage(contents, found, tools);
  if (damaged.length === 0) return plan;
  log.warn(`${damaged.length} paths of the store are damaged, and are downloaded again`, {
    paths: damaged,
  });
  return planFetch(contents, tools, { damaged });
}

/** Those of these damaged paths that the archives have with the contents that they must have. */
async function knownDamage(
  { narInfos }: ArchiveContents,
  damaged: readonly string[],
  { repair, log }: Pick<FetchTools, "repair" | "log">,
): Promise<string[]> {
  if (damaged.length === 0) return [];
  const registered = await repair.registeredHashes(damaged);
  return narInfos.flatMap(({ storePath, narHash }) => {
    const path = absolute(storePath);
    const expected = registered.get(path);
    if (expected === undefined || expected === narHash) return expected === undefined ? [] : [path];
    log.warn(`${path} is damaged; expected contents ${expected}, the mirror has ${narHash}`);
    return [];
  });
}

/** Reads what is planned from the mirrors, and imports it. Throws as `fetchClosure`. */
async function bringIn(
  plan: FetchPlan,
  {
    release,
    staging,
    tools,
    signal,
  }: {
    release: ClosurePlace;
    staging: Staging;
    tools: FetchTools;
    signal: AbortSignal | undefined;
  },
): Promise<ReadSummary> {
  const failed = new AbortController();
  const stop = signal ? AbortSignal.any([signal, failed.signal]) : failed.signal;
  let imports: ImportStream | null = null;
  let held = async (): Promise<number> => 0;
  let heldBefore = 0;
  try {
    const missing = await staging.missing(plan.nars.values());
    held = async () => bytesHeld(plan, await staging.missing(plan.nars.values()));
    heldBefore = bytesHeld(plan, missing);
    const budget = stagingBudget(release, tools.settings);
    await requireSpace(plan, missing, budget, tools);
    imports = importStreamOf(plan, {
      ...{ staging, tools, budget, signal: stop },
      // An import that fails ends the download too.
      onFailure: () => {
        failed.abort();
      },
    });
    const read = await readNars(plan, { staging, missing, imports, tools, signal: stop });
    await imports.finish();
    return read;
  } catch (thrown) {
    // If an import failed, its error is the one that counts: it ended the download.
    const error = toPullError((await imports?.settle()) ?? thrown);
    const { sha256 } = release.archive;
    const before = Math.max(heldBefore, tools.furthest.get(sha256) ?? 0);
    const now = await held().catch(() => 0);
    tools.furthest.set(sha256, Math.max(before, now));
    const advanced = (imports?.imported ?? 0) > 0 || now > before;
    if (advanced && KEEPS_STAGING.has(error.code)) tools.onAdvance?.();
    throw error;
  }
}

/** How much of the plan's NARs lies in staging, whole or begun. */
function bytesHeld({ nars }: FetchPlan, missing: ReadonlyMap<string, number>): number {
  let bytes = 0;
  for (const { name, size } of nars.values()) bytes += missing.get(name) ?? size;
  return bytes;
}

/** The next release's patch is applied to the index. Without it the next one comes whole. */
async function keepIndex(
  release: Release,
  { json, verified }: CheckedIndex,
  { indexes, log }: Pick<FetchTools, "indexes" | "log">,
): Promise<void> {
  const kept = { json, verified: verified.encode() };
  await indexes.keep(release.archive.index.sha256, kept).catch((error: unknown) => {
    log.debug(`the index is not kept: ${toPullError(error).message}`);
  });
}

/** After these the download is resumed where it stopped; after all others it starts anew. */
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

/** Keeps what a later attempt can go on with, and removes everything else. */
async function leaveFailed(error: PullError, staging: Staging, tools: FetchTools): Promise<void> {
  const resumable = KEEPS_STAGING.has(error.code);
  if (!resumable || !(await staging.holdsNars())) {
    await tools.staging.remove().catch(() => undefined);
  }
  // What is refused, or fills the disk, is left to the garbage collector.
  if (!resumable) await releaseImported(tools).catch(() => undefined);
}

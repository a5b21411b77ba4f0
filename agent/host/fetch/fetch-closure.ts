import { toPullError, type ErrorCode, type PullError } from "../../core/errors.ts";
import type { Release } from "../../core/formats/manifest.ts";
import type { FetchSummary, Staging } from "../../core/ports.ts";
import { requireSpace, stagingBudget } from "./disk-space.ts";
import { mendImported, releaseImported } from "./imported-paths.ts";
import { importStreamOf } from "./imports.ts";
import type { ImportStream } from "./import-stream.ts";
import { planFetch, type FetchPlan } from "./plan.ts";
import { readIndex, type CheckedIndex } from "./read-index.ts";
import { readNars } from "./read-nars.ts";
import type { FetchTools } from "./tools.ts";

/**
 * Brings a release's closure into the store: reads the index, asks the store what it lacks,
 * makes sure of the disk, reads the missing NARs from the first mirror that serves them, and
 * has Nix import them while the rest is on its way. Uses what an earlier attempt staged or
 * imported. After an error that another attempt may mend, what was staged stays, and `onAdvance`
 * hears if that is more than before; after every other error it is removed. Throws the codes of mirrors, archives, imports and disks, and
 * INTERRUPTED.
 */
export async function fetchClosure(
  release: Release,
  tools: FetchTools,
  signal?: AbortSignal,
): Promise<FetchSummary> {
  const staging = tools.staging.open(release.archive.sha256);
  const failed = new AbortController();
  const stop = signal ? AbortSignal.any([signal, failed.signal]) : failed.signal;
  let imports: ImportStream | null = null;
  let held = async (): Promise<number> => 0;
  let heldBefore = 0;
  try {
    await staging.prepare();
    await mendImported(tools);
    const index = await readIndex(release, staging, tools, signal);
    const plan = await planFetch(index.contents, tools);
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
    await leaveImported(release, index, tools);
    return { paths: index.contents.narInfos.length, newPaths: plan.paths.length, ...read };
  } catch (thrown) {
    // If an import failed, its error is the one that counts: it ended the download.
    const error = toPullError((await imports?.settle()) ?? thrown);
    const advanced = (imports?.imported ?? 0) > 0 || (await held().catch(() => 0)) > heldBefore;
    if (advanced && KEEPS_STAGING.has(error.code)) tools.onAdvance?.();
    await leaveFailed(error, staging, tools);
    throw error;
  }
}

/** How much of the plan's NARs lies in staging, whole or begun. */
function bytesHeld({ nars }: FetchPlan, missing: ReadonlyMap<string, number>): number {
  let bytes = 0;
  for (const { name, size } of nars.values()) bytes += missing.get(name) ?? size;
  return bytes;
}

/** The store has the closure, and the root of the whole closure holds it. */
async function leaveImported(
  release: Release,
  { json }: CheckedIndex,
  tools: FetchTools,
): Promise<void> {
  await releaseImported(tools);
  await tools.staging.remove();
  // The next release's patch is applied to it. Without it the next index comes whole.
  await tools.indexes.keep(release.archive.index.sha256, json).catch((error: unknown) => {
    tools.log.debug(`the index is not kept: ${toPullError(error).message}`);
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

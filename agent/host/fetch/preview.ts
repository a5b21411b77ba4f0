import type { Release } from "../../core/formats/manifest.ts";
import type { FetchPreview } from "../../core/ports.ts";
import { packageChanges, type SizedPath } from "../../core/release/package-difference.ts";
import { bytesOf, planRuns } from "../../core/transfer/fetch-plan.ts";
import { requireSpace, stagingBudget, storeBytes } from "./disk-space.ts";
import { planFetch } from "./plan.ts";
import { readIndex } from "./read-index.ts";
import type { FetchTools } from "./tools.ts";

/**
 * Says what `fetchClosure` would move; writes nothing. Throws as `fetchClosure` does before
 * it downloads.
 */
export async function previewFetch(
  release: Release,
  tools: FetchTools,
  signal?: AbortSignal,
): Promise<FetchPreview> {
  const { contents } = await readIndex(release, null, tools, signal);
  const plan = await planFetch(contents, tools);
  const missing = new Map([...plan.nars.keys()].map((name) => [name, 0]));
  await requireSpace(plan, missing, stagingBudget(release, tools.settings), tools);
  let deltaBytes = 0;
  for (const { delta } of plan.paths) {
    if (!delta) continue;
    missing.delete(delta.member);
    deltaBytes += delta.delta.size;
  }
  return {
    paths: contents.narInfos.length,
    newPaths: plan.paths.length,
    downloadBytes: bytesOf(planRuns(contents, missing)) + deltaBytes,
    storeBytes: storeBytes(plan),
    packages: await changedPackages(contents.narInfos, tools),
  };
}

/** What changes from the running system, by the names of store paths. */
async function changedPackages(
  after: readonly SizedPath[],
  { store }: FetchTools,
): Promise<FetchPreview["packages"]> {
  const running = await store.runningToplevel();
  const before = running === null ? null : await store.closureOf(running);
  return before && packageChanges(before, after);
}

import { PullError } from "../../core/errors.ts";
import type { Release } from "../../core/formats/manifest.ts";
import type { FetchPreview } from "../../core/ports.ts";
import { packageChanges, type SizedPath } from "../../core/release/package-difference.ts";
import { downloadBytesOf } from "../../core/transfer/closure-plan.ts";
import { whyNotImported } from "../../core/transfer/store-access.ts";
import { shortagesOf, stagingBudget, storeBytes } from "./disk-space.ts";
import { planFetch } from "./plan.ts";
import { readIndex } from "./read-index.ts";
import type { FetchTools } from "./tools.ts";

/**
 * Says what `fetchClosure` would move; writes nothing. Throws as `fetchClosure` does before
 * it downloads, and IMPORT_FAILED if the Nix daemon would refuse the paths for their signatures.
 */
export async function previewFetch(
  release: Release,
  tools: FetchTools,
  signal?: AbortSignal,
): Promise<FetchPreview> {
  const { contents } = await readIndex(release, null, tools, signal);
  const plan = await planFetch(contents, tools);
  if (plan.paths.length > 0) await expectImportable(tools);
  const missing = new Map([...plan.nars.keys()].map((name) => [name, 0]));
  const { settings } = tools;
  const shortages = await shortagesOf(plan, missing, stagingBudget(release, settings), tools);
  const mayCollect = settings.generations.collect === "when-needed";
  const [shortage] = shortages.filter(
    ({ onStore, isTooSmall }) => !(onStore && mayCollect) || isTooSmall,
  );
  if (shortage) throw new PullError("DISK_FULL", shortage.message);
  return {
    paths: contents.narInfos.length,
    newPaths: plan.paths.length,
    downloadBytes: downloadBytesOf(plan),
    storeBytes: storeBytes(plan),
    collectsGarbage: shortages.length > 0,
    packages: await changedPackages(contents.narInfos, tools),
  };
}

/**
 * Throws IMPORT_FAILED if Nix would refuse the paths by its own configuration. A fetch does not ask: if
 * we understand that configuration wrongly, that must not keep a host from an update.
 */
async function expectImportable({ store, settings }: FetchTools): Promise<void> {
  const why = whyNotImported(await store.access(), settings.storeKeys);
  if (why !== null) throw new PullError("IMPORT_FAILED", why);
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

import { toPullError } from "../../core/errors.ts";
import type { Staging } from "../../core/ports.ts";
import { STORE_DIRECTORY } from "../../core/formats/store-path.ts";
import { shortagesOf, stagingBudget } from "./disk-space.ts";
import type { FetchPlan } from "../../core/transfer/closure-plan.ts";
import type { ClosurePlace } from "./read-index.ts";
import type { FetchTools } from "./tools.ts";

/** Name of the roots that hold what runs during a collection, whatever else does. */
const COLLECTION_ROOTS = "collection";

/** How room is made. */
export interface RoomContext {
  readonly release: ClosurePlace;
  readonly staging: Staging;
  readonly tools: FetchTools;
  readonly signal: AbortSignal | undefined;
}

/**
 * Has Nix collect garbage if the store's disk has no room for a plan and the settings allow it: only
 * as much as is missing, nothing that a root holds, and nothing if it cannot help. Gives whether it did; the plan has to be made
 * again then. A collection that fails is only logged: the check for room follows. Throws INTERRUPTED.
 */
export async function makeRoom(
  plan: FetchPlan,
  { release, staging, tools, signal }: RoomContext,
): Promise<boolean> {
  const { settings, store, roots, disk, log } = tools;
  if (settings.generations.collect !== "when-needed") return false;
  const missing = await staging.missing(plan.nars.values());
  const budget = stagingBudget(release, settings);
  const shortages = (await shortagesOf(plan, missing, budget, tools)).filter((it) => it.onStore);
  if (shortages.length === 0 || shortages.some(({ isTooSmall }) => isTooSmall)) return false;
  const wanted = Math.max(...shortages.map(({ bytes }) => bytes));
  const place = store.realPath(STORE_DIRECTORY);
  const before = (await disk.freeSpace(place)).free;
  log.info(`the store has no room: collecting ${wanted} bytes of garbage`);
  const held = [await store.runningToplevel(), await store.bootedToplevel()];
  held.push(await store.profileToplevel());
  await roots.holdAlso(COLLECTION_ROOTS, [...new Set(held.filter((path) => path !== null))]);
  // The disk tells less: Nix also removes a reserve of its own, and makes it again later.
  let told: number | null = null;
  try {
    told = await store.collectGarbage(wanted, signal);
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code === "INTERRUPTED") throw error;
    log.warn(`garbage was not collected: ${error.message}`, { code: error.code });
  } finally {
    await roots.release(COLLECTION_ROOTS);
  }
  const freed = told ?? Math.max(0, (await disk.freeSpace(place)).free - before);
  await tools.onCollected?.({ wanted, freed });
  return true;
}

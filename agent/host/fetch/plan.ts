import type { ArchiveContents } from "../../core/formats/archive-index.ts";
import {
  absolute,
  chooseDeltas,
  offersFor,
  planClosure,
  type FetchPlan,
  type PlannedDelta,
} from "../../core/transfer/closure-plan.ts";
import type { FetchTools } from "./tools.ts";

/** What a plan is made for, if that is not what the store says that it lacks. */
export interface PlanRequest {
  /** Valid paths that come again, because they are damaged. */
  readonly damaged?: readonly string[];
  /** The only paths that are wanted. */
  readonly only?: ReadonlySet<string>;
}

/** Asks the store what it lacks, and chooses how each missing path comes. Throws as the store. */
export async function planFetch(
  contents: ArchiveContents,
  tools: Pick<FetchTools, "settings" | "store" | "deltas" | "log">,
  { damaged = [], only }: PlanRequest = {},
): Promise<FetchPlan> {
  const paths = contents.narInfos.map(({ storePath }) => absolute(storePath));
  const invalid = new Set(await tools.store.invalidPaths(paths));
  const deltas = await deltasHere(contents, { invalid, damaged }, tools);
  const wanted = new Set([...invalid, ...damaged].filter((path) => !only || only.has(path)));
  return planClosure(contents, { wanted, damaged, deltas });
}

/**
 * The cheapest delta for each missing path whose base the store holds. There are none if limits
 * forbid it, or if this host cannot apply them.
 */
async function deltasHere(
  contents: ArchiveContents,
  { invalid, damaged }: { invalid: ReadonlySet<string>; damaged: readonly string[] },
  {
    settings,
    store,
    deltas: maker,
    log,
  }: Pick<FetchTools, "settings" | "store" | "deltas" | "log">,
): Promise<ReadonlyMap<string, PlannedDelta>> {
  const offers = offersFor(contents, invalid, settings.limits.deltaNarBytes);
  if (offers.length === 0) return new Map();
  if (!(await maker.canMake())) {
    log.info(`zstd is not on PATH: ${offers.length} paths are downloaded whole`);
    return new Map();
  }
  const bases = new Set(offers.flatMap(({ deltas }) => deltas.map(({ base }) => base)));
  const absent = new Set([...(await store.invalidPaths([...bases])), ...damaged]);
  return chooseDeltas(offers, (base) => !absent.has(base));
}

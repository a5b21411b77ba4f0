import type { MeasuredRun } from "./process-usage.mjs";

/** `nix copy --from CACHE PATHS` into the store below `root`, signatures checked. */
export function importByHand(
  root: string,
  cache: string,
  paths: readonly string[],
  publicKey: string,
): Promise<MeasuredRun>;

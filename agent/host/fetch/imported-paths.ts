import { toPullError } from "../../core/errors.ts";
import type { FetchTools } from "./tools.ts";

/** Name of the garbage collector roots that hold the imported part of an unfinished closure. */
export const IMPORTED_ROOTS = "pending-paths";

type ImportTools = Pick<FetchTools, "store" | "roots" | "log">;

/**
 * Removes the damaged ones of the paths that an earlier attempt imported and did not flush,
 * so that they are imported again. Nix records a path as valid before its contents are on the
 * disk: after a power cut a valid path may be empty. Does nothing if the earlier attempt came
 * to its end. Throws as `NixStore.removeDamaged`.
 */
export async function mendImported({ store, roots, log }: ImportTools): Promise<void> {
  const held = await roots.heldBelow(IMPORTED_ROOTS);
  if (held.length === 0) return;
  const removed = await store.removeDamaged(held);
  if (removed.length === 0) return;
  log.warn(`${removed.length} paths were damaged while they were imported and are removed`, {
    paths: removed,
  });
}

/**
 * Lets the garbage collector have what was imported for a closure and nothing else holds.
 * Flushes first: paths that stay valid may be used by others, and must be on the disk. Throws
 * as `NixStore.flush`.
 */
export async function releaseImported({ store, roots }: ImportTools): Promise<void> {
  if ((await roots.heldBelow(IMPORTED_ROOTS)).length > 0) await store.flush();
  await roots.release(IMPORTED_ROOTS);
}

/** Ends an attempt that will not be resumed. If that fails, the next attempt does it. */
export async function abandonImported(tools: ImportTools): Promise<void> {
  try {
    await mendImported(tools);
    await releaseImported(tools);
  } catch (thrown) {
    const error = toPullError(thrown);
    tools.log.warn(`what was imported is not cleaned up yet: ${error.message}`, {
      code: error.code,
    });
  }
}

import { toPullError } from "../../core/errors.ts";
import type { FetchTools } from "./closure-fetch.ts";

/** Name of the garbage collector roots that hold the imported part of an unfinished closure. */
export const IMPORTED_ROOTS = "pending-paths";

type ImportTools = Pick<FetchTools, "store" | "roots" | "log">;

/**
 * Looks at what an earlier attempt imported and did not flush: Nix records a path as valid
 * before its contents are on the disk, so after a power cut a valid path may be empty.
 * Damaged ones are removed, so that they are imported again. Nothing to do where the
 * attempt before came to its end.
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
 * Lets go of what was imported for a closure, once it is certain that what stays valid
 * is on the disk: somebody may come to use it.
 */
export async function releaseImported({ store, roots }: ImportTools): Promise<void> {
  if ((await roots.heldBelow(IMPORTED_ROOTS)).length > 0) await store.flush();
  await roots.release(IMPORTED_ROOTS);
}

/** Ends an attempt that nothing will go on with; where that fails, the next attempt does it. */
export async function abandonImported(tools: ImportTools): Promise<void> {
  try {
    await mendImported(tools);
    await releaseImported(tools);
  } catch (thrown) {
    const error = toPullError(thrown);
    tools.log.warn(`what was imported is not looked at yet: ${error.message}`, {
      code: error.code,
    });
  }
}

import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import { lockFile, type ProcessLock } from "../process/process-lock.ts";

/**
 * Nix's lock for garbage collections below its state directory: a collection has it exclusively from
 * its beginning to its end, and whoever must not be disturbed has it shared (Nix, `openGCLock`).
 */
const LOCK = "nix/var/nix/gc.lock";

/** For so long a stop is not heard. */
const SLICE_MS = 5_000;

/**
 * Waits for a garbage collection that is under way and keeps others waiting until the lock is
 * released; builds and imports go on. `root` is the directory of a chroot store, or null. Throws
 * TOOL_TIMEOUT if a collection goes on for longer than `timeoutMs`, INTERRUPTED, TOOL_MISSING, and
 * the operating system's errors.
 */
export async function keepCollectionsAway(
  root: string | null,
  { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal | undefined },
): Promise<ProcessLock> {
  const path = join(root ?? "/", LOCK);
  const end = performance.now() + timeoutMs;
  while (performance.now() < end) {
    if (signal?.aborted) throw new PullError("INTERRUPTED", "stopped beside a garbage collection");
    // As Nix makes it: it may be the first to need it.
    const file = await open(
      path,
      constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW,
      0o600,
    );
    const lock = await lockFile(file, "shared", Math.min(SLICE_MS, timeoutMs));
    if (lock) return lock;
  }
  throw new PullError(
    "TOOL_TIMEOUT",
    `${path}: a garbage collection was not over after ${Math.round(timeoutMs / 1000)} s`,
  );
}

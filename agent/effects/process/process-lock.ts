import { readdir, readFile, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { LockName, Locks } from "../../core/ports.ts";
import { fileNamed } from "../files/root-directory.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { describeFailure, runProcess } from "./subprocess.ts";

/** A lock that the kernel releases when its holder dies. */
export interface ProcessLock {
  release(): Promise<void>;
}

/**
 * Takes an exclusive lock on a file and notes this process in it, or gives null if another process
 * holds it. A link is not followed. Throws UNSAFE_FILE if something else than a file is there, TOOL_MISSING, and the operating system's errors.
 */
export async function tryLock(path: string): Promise<ProcessLock | null> {
  const { root, name } = fileNamed(path);
  const file = await root.openLock(name);
  const lock = await lockFile(file, "exclusive");
  if (!lock) return null;
  try {
    await file.truncate(0);
    await file.write(`${process.pid}\n`, 0);
    return lock;
  } catch (error) {
    await lock.release();
    throw error;
  }
}

/**
 * Locks an open file by flock(2), without a change to it, or closes it and gives null if another
 * process holds it. Several processes may have a shared lock. Node has no flock, so util-linux's
 * `flock` locks a descriptor that it inherits. The lock belongs to the open file description,
 * which this process keeps. With `waitMs` it waits so long for others. Throws TOOL_MISSING and the
 * operating system's errors.
 */
export async function lockFile(
  file: FileHandle,
  kind: "exclusive" | "shared",
  waitMs = 0,
): Promise<ProcessLock | null> {
  try {
    if ((await lockDescriptor(file, kind, waitMs)) === 0) return { release: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
  await file.close();
  return null;
}

/** The locks of a state directory, which must exist. Throws TOOL_MISSING and IO errors. */
export function locksIn(stateDirectory: string): Locks {
  const fileOf = (name: LockName): string => join(stateDirectory, `${name}.lock`);
  return {
    fileOf,
    async take(name) {
      const lock = await tryLock(fileOf(name));
      return lock && (() => lock.release());
    },
    holder: (name) => holderOf(fileOf(name)),
  };
}

/**
 * The process that holds the lock on a file: the one that is noted in it, if that has the file
 * open. (The number may have become another process's since.) Null if none does, or if its files
 * cannot be seen.
 */
async function holderOf(path: string): Promise<number | null> {
  try {
    const pid = Number((await readFile(path, "utf8")).trim());
    if (!Number.isSafeInteger(pid) || pid <= 0) return null;
    // By device and inode: a service may see the same file at another path, in its own mounts.
    const [file, descriptors] = await Promise.all([stat(path), readdir(`/proc/${pid}/fd`)]);
    const open = await Promise.all(
      descriptors.map((it) => stat(`/proc/${pid}/fd/${it}`).catch(() => null)),
    );
    return open.some((it) => it?.ino === file.ino && it.dev === file.dev) ? pid : null;
  } catch {
    return null;
  }
}

/** Exit code that `flock` is told to give if the lock is held (flock(1), -E). */
const HELD = 75;

/** `flock` answers at once when its wait is over; only a stuck machine takes this long. */
const TIMEOUT_MS = 60_000;

async function lockDescriptor(
  file: FileHandle,
  kind: "exclusive" | "shared",
  waitMs: number,
): Promise<number> {
  const wait = waitMs === 0 ? ["--nonblock"] : ["--timeout", String(waitMs / 1000)];
  const args = [`--${kind}`, ...wait, "-E", String(HELD), "3"];
  const result = await runProcess("flock", args, {
    env: childEnvironment(),
    timeoutMs: waitMs + TIMEOUT_MS,
    descriptors: [file.fd],
  });
  if (result.exitCode === 0 || result.exitCode === HELD) return result.exitCode;
  throw new PullError(result.timedOut ? "TOOL_TIMEOUT" : "IO_FAILED", describeFailure(result));
}

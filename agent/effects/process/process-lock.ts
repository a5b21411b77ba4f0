import { spawn } from "node:child_process";
import { once } from "node:events";
import { open, type FileHandle } from "node:fs/promises";
import { PullError } from "../../core/errors.ts";
import { childEnvironment } from "../nix/nix-environment.ts";

/** A lock that the kernel gives up when its holder dies. */
export interface ProcessLock {
  release(): Promise<void>;
}

/**
 * Takes an exclusive flock(2) on a file, or gives null where another process holds it.
 * Node has no flock, so util-linux's `flock` locks the descriptor that it inherits;
 * the lock belongs to the open file description, which this process keeps.
 */
export async function tryLock(path: string): Promise<ProcessLock | null> {
  const file = await open(path, "a+", 0o600);
  try {
    if ((await lockDescriptor(file)) === 0) {
      await file.truncate(0);
      await file.write(`${process.pid}\n`);
      return { release: () => file.close() };
    }
  } catch (error) {
    await file.close();
    throw error;
  }
  await file.close();
  return null;
}

/** Exit code that `flock` is told to give where the lock is held (flock(1), -E). */
const HELD = 75;

async function lockDescriptor(file: FileHandle): Promise<number> {
  const child = spawn("flock", ["--exclusive", "--nonblock", "-E", String(HELD), "3"], {
    env: childEnvironment(),
    stdio: ["ignore", "ignore", "ignore", file.fd],
  });
  const ended = once(child, "close");
  child.once("error", () => undefined);
  const [code] = (await ended.catch((cause: unknown) => {
    throw new PullError("TOOL_MISSING", "expected the program flock (util-linux) on PATH", {
      cause,
    });
  })) as [number | null];
  if (code !== 0 && code !== HELD) {
    throw new PullError("IO_FAILED", `flock ended with exit code ${code}`);
  }
  return code;
}

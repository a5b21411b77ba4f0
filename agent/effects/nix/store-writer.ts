import { mkdir } from "node:fs/promises";
import { hasErrorCode } from "../files/missing-file.ts";
import { childEnvironment, inCalls } from "./nix-environment.ts";
import { runProcess, describeFailure, type StreamOptions } from "../process/subprocess.ts";
import { PullError } from "../../core/errors.ts";
import { NO_PERMISSION, NO_SPACE } from "./nix-programs.ts";

/**
 * NixOS mounts the store read-only over itself, and Nix makes it writable in a mount namespace of
 * its own (unshare(2)). So does this, for one program: `$1` is the mount, the rest the program.
 */
const IN_OWN_NAMESPACE = 'mount -o remount,bind,rw "$1" && shift && exec "$@"';

/** Changes files in the store by coreutils, beside what Nix itself does there. */
export class StoreWriter {
  readonly #prefix: readonly string[];
  readonly #options: Omit<StreamOptions, "input">;

  private constructor(prefix: readonly string[], options: Omit<StreamOptions, "input">) {
    this.#prefix = prefix;
    this.#options = options;
  }

  /** A writer for the store in this directory, with an empty directory `work` in it. Throws IO_FAILED, … */
  static async open(
    store: string,
    work: string,
    how: Pick<StreamOptions, "timeoutMs" | "signal">,
  ): Promise<StoreWriter> {
    const options = { env: childEnvironment(), ...how };
    const direct = new StoreWriter([], options);
    const inNamespace = new StoreWriter(
      ["unshare", "--mount", "/bin/sh", "-c", IN_OWN_NAMESPACE, "sh", store],
      options,
    );
    try {
      await direct.remove(work);
      await mkdir(work, { mode: 0o700 });
      return direct;
    } catch (error) {
      if (!hasErrorCode(error, "EROFS") && !isReadOnly(error)) throw error;
    }
    await inNamespace.remove(work);
    await inNamespace.run("mkdir", ["--mode=0700", work]);
    return inNamespace;
  }

  /**
   * Runs a program to its end; `changes` replaces how it is run. Throws IO_FAILED, DISK_FULL,
   * PERMISSION_DENIED, TOOL_MISSING, TOOL_TIMEOUT, INTERRUPTED.
   */
  async run(
    program: string,
    args: readonly string[],
    changes: Partial<StreamOptions> = {},
  ): Promise<void> {
    const [command = program, ...rest] = [...this.#prefix, program, ...args];
    const result = await runProcess(command, rest, { ...this.#options, ...changes });
    if (result.exitCode === 0) return;
    const message = describeFailure(result);
    if (result.timedOut) throw new PullError("TOOL_TIMEOUT", message);
    if (NO_SPACE.test(message)) throw new PullError("DISK_FULL", message);
    throw new PullError(NO_PERMISSION.test(message) ? "PERMISSION_DENIED" : "IO_FAILED", message);
  }

  /** Renames over what is there, in one step (rename(2)). */
  async rename(from: string, to: string): Promise<void> {
    await this.run("mv", ["-fT", "--", from, to]);
  }

  /** Removes a tree, if there is one, whoever says stop. Links are not followed. */
  async remove(path: string): Promise<void> {
    await this.run("rm", ["-rf", "--", path], { signal: undefined });
  }

  /** Gives files and directories, no links, the rights that Nix gives them. */
  async makeReadOnly(paths: readonly string[]): Promise<void> {
    for (const some of inCalls(paths)) await this.run("chmod", ["a=rX", "--", ...some]);
  }

  /** Gives everything the one time that Nix gives it. */
  async resetTimes(paths: readonly string[]): Promise<void> {
    for (const some of inCalls(paths)) {
      await this.run("touch", ["--no-dereference", "--date=@1", "--", ...some]);
    }
  }
}

function isReadOnly(error: unknown): boolean {
  return error instanceof PullError && /Read-only file system/i.test(error.message);
}

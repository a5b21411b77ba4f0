import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import { STORE_DIRECTORY } from "../../core/formats/store-path.ts";
import type { Settings } from "../../core/settings.ts";
import { systemDisk } from "../files/disk.ts";
import { describeFailure, runProcess, type ProcessResult } from "../process/subprocess.ts";
import { NIX_OPTIONS, childEnvironment, inCalls, storeRoot } from "./nix-environment.ts";

/** Queries and profile changes are quick; only a stuck daemon or disk takes this long. */
const QUERY_TIMEOUT_MS = 10 * 60 * 1000;

/** Output of a query that is kept: the paths of a call may have many more in their closures. */
const QUERY_BYTES = 64 * 1024 * 1024;

/** Nothing can be imported into a file system with less space than this. */
const FULL_BYTES = 16 * 1024 * 1024;

/** What programs say of a full disk, and of missing rights. */
export const NO_SPACE = /No space left on device|Disk quota exceeded|database or disk is full/i;
export const NO_PERMISSION = /Permission denied|Read-only file system|Operation not permitted/i;

/** Nix's own programs, run on the host's store. */
export class NixPrograms {
  /** The directory of a chroot store, or null. */
  readonly root: string | null;
  readonly #settings: Pick<Settings, "storeKeys" | "limits">;
  readonly #options: readonly string[];

  constructor(settings: Pick<Settings, "store" | "storeKeys" | "limits">) {
    this.#settings = settings;
    this.root = storeRoot(settings.store);
    this.#options = [
      ...(settings.store === undefined ? [] : ["--store", settings.store]),
      ...NIX_OPTIONS,
    ];
  }

  /** Runs a program for a query or a change of the profile. Gives the result whatever the exit code. */
  query(command: string, args: readonly string[]): Promise<ProcessResult> {
    return runProcess(command, [...args, ...this.#options], {
      env: childEnvironment(),
      timeoutMs: QUERY_TIMEOUT_MS,
      maxOutput: QUERY_BYTES,
    });
  }

  /** Runs `nix-store` on all these paths; gives the lines that it prints. Throws IO_FAILED, …. */
  async queryPaths(args: readonly string[], paths: readonly string[]): Promise<string[]> {
    const lines: string[] = [];
    for (const some of inCalls(paths)) {
      const result = await this.query("nix-store", [...args, ...some]);
      if (result.exitCode !== 0) throw await this.failure("IO_FAILED", result);
      lines.push(...result.stdout.split("\n").filter((line) => line !== ""));
    }
    return lines;
  }

  /**
   * Whether paths have the contents with which they were registered. Throws TOOL_TIMEOUT,
   * TOOL_MISSING, INTERRUPTED.
   */
  async areWhole(paths: readonly string[], signal?: AbortSignal): Promise<boolean> {
    const args = ["--verify-path", ...paths, ...this.#options];
    const result = await runProcess("nix-store", args, { ...this.#slow(), signal });
    // That it took too long says nothing about the paths.
    if (result.timedOut) throw await this.failure("IO_FAILED", result);
    return result.exitCode === 0;
  }

  /** Deletes garbage until so many bytes are freed; gives how many Nix says that it freed. Throws IO_FAILED, TOOL_TIMEOUT, … */
  async collect(bytes: number, signal: AbortSignal | undefined): Promise<number | null> {
    const args = ["--gc", "--max-freed", String(bytes), ...this.#options];
    const result = await runProcess("nix-store", args, { ...this.#slow(), signal });
    if (result.exitCode !== 0) throw await this.failure("IO_FAILED", result);
    return freedIn(result.stdout) ?? freedIn(result.stderr);
  }

  /** Flushes the store's file system. Throws IO_FAILED, …. */
  async flush(): Promise<void> {
    // sync(1): the whole file system, which is quicker than file by file.
    const store = join(this.root ?? "/", STORE_DIRECTORY);
    const result = await runProcess("sync", ["-f", store], this.#slow());
    if (result.exitCode !== 0) throw await this.failure("IO_FAILED", result);
  }

  /** `nix copy` of these paths alone from a binary cache in a directory. Throws IMPORT_FAILED, …. */
  async copy(
    directory: string,
    paths: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const keys = this.#settings.storeKeys.map(({ text }) => text).join(" ");
    const args = [
      ...["copy", "--from", `file://${directory}`, "--no-recursive", ...paths, ...this.#options],
      // Set here and not left to nix.conf: a host that trusts more keys elsewhere, or checks
      // nothing, must not widen what a release may bring in.
      ...["--option", "trusted-public-keys", keys],
      ...["--option", "require-sigs", "true"],
    ];
    const result = await runProcess("nix", args, { ...this.#slow(), signal });
    if (result.exitCode !== 0) throw await this.failure("IMPORT_FAILED", result);
  }

  /** What a failed program means. A full disk and missing rights look alike in all of them. */
  async failure(
    code: "IMPORT_FAILED" | "PROFILE_FAILED" | "IO_FAILED",
    result: ProcessResult,
  ): Promise<PullError> {
    const message = describeFailure(result);
    if (result.timedOut) return new PullError("TOOL_TIMEOUT", message);
    if (NO_SPACE.test(result.stderr)) return new PullError("DISK_FULL", message);
    if (NO_PERMISSION.test(result.stderr)) return new PullError("PERMISSION_DENIED", message);
    // With no byte left, SQLite only says "disk I/O error"; with no inode, "unable to open".
    const { free, inodes } = await systemDisk.freeSpace(join(this.root ?? "/", STORE_DIRECTORY));
    const isFull = free < FULL_BYTES || inodes?.free === 0;
    return new PullError(isFull ? "DISK_FULL" : code, message);
  }

  /** For programs that read or write the contents of paths. */
  #slow(): { env: Record<string, string>; timeoutMs: number } {
    return { env: childEnvironment(), timeoutMs: this.#settings.limits.importTimeout };
  }
}

const UNITS: Readonly<Record<string, number>> = {
  bytes: 1,
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
};

/** What Nix prints last of a collection: `3 store paths deleted, 1.25 MiB freed`. */
export function freedIn(output: string): number | null {
  const found = /\bstore paths? deleted, ([\d.]+) (bytes|B|KiB|MiB|GiB) freed/.exec(output);
  const unit = UNITS[found?.[2] ?? ""];
  return found && unit !== undefined ? Math.round(Number(found[1]) * unit) : null;
}

import { readdir, realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { NixStore } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { STORE_DIRECTORY, STORE_PATH_NAME } from "../../core/formats/store-path.ts";
import { systemDisk } from "../files/disk.ts";
import { removeDurably, syncDirectory } from "../files/durable-file.ts";
import { ifMissing, readLinkIfExists } from "../files/missing-file.ts";
import { NIX_OPTIONS, PATHS_PER_CALL, childEnvironment, storeRoot } from "./nix-environment.ts";
import { describeFailure, runProcess, type ProcessResult } from "../process/subprocess.ts";

/** So many are verified by one call, and each by one where that finds a damaged one. */
const PATHS_PER_VERIFICATION = 64;

/** Queries and profile changes are quick; only a stuck daemon or disk takes this long. */
const QUERY_TIMEOUT_MS = 10 * 60 * 1000;

/** Nothing can be imported into a file system with less than this. */
const FULL_BYTES = 16 * 1024 * 1024;

const NO_SPACE = /No space left on device|Disk quota exceeded|database or disk is full/i;
const NO_PERMISSION = /Permission denied|Read-only file system|Operation not permitted/i;

/** The host's store and system profile by way of Nix's own programs. */
export function nixStoreOf(
  settings: Pick<Settings, "store" | "paths" | "storeKeys" | "limits">,
): NixStore {
  const { profile, currentSystem, bootedSystem } = settings.paths;
  const storeOption = settings.store === undefined ? [] : ["--store", settings.store];
  const root = storeRoot(settings.store);

  const query = (command: string, args: readonly string[]): Promise<ProcessResult> =>
    runProcess(command, [...args, ...storeOption, ...NIX_OPTIONS], {
      env: childEnvironment(),
      timeoutMs: QUERY_TIMEOUT_MS,
      maxOutput: 64 * 1024 * 1024,
    });

  /** Full disks and missing rights look alike in every Nix program; the rest keeps `code`. */
  const failure = async (
    code: "IMPORT_FAILED" | "PROFILE_FAILED" | "IO_FAILED",
    result: ProcessResult,
  ): Promise<PullError> => {
    const message = describeFailure(result);
    if (result.timedOut) return new PullError("TOOL_TIMEOUT", message);
    if (NO_SPACE.test(result.stderr)) return new PullError("DISK_FULL", message);
    if (NO_PERMISSION.test(result.stderr)) return new PullError("PERMISSION_DENIED", message);
    // With no byte left, SQLite only says "disk I/O error".
    const { free } = await systemDisk.freeSpace(join(root ?? "/", STORE_DIRECTORY));
    return new PullError(free < FULL_BYTES ? "DISK_FULL" : code, message);
  };

  const profileCommand = async (...args: string[]): Promise<void> => {
    const result = await query("nix-env", ["--profile", profile, ...args]);
    if (result.exitCode !== 0) throw await failure("PROFILE_FAILED", result);
    await syncDirectory(dirname(profile));
  };

  const copy = async (
    directory: string,
    paths: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<void> => {
    const result = await runProcess(
      "nix",
      [
        ...["copy", "--from", `file://${directory}`, "--no-recursive", ...paths],
        ...storeOption,
        ...NIX_OPTIONS,
        // Set here and not left to nix.conf: what the host trusts elsewhere, or that it
        // checks nothing, must not widen what a release may bring in.
        ...[
          "--option",
          "trusted-public-keys",
          settings.storeKeys.map(({ text }) => text).join(" "),
        ],
        ...["--option", "require-sigs", "true"],
      ],
      { env: childEnvironment(), timeoutMs: settings.limits.importTimeout, signal },
    );
    if (result.exitCode !== 0) throw await failure("IMPORT_FAILED", result);
  };

  /** Runs `nix-store` on some paths after others; gives the lines that it prints. */
  const queryPaths = async (
    args: readonly string[],
    paths: readonly string[],
  ): Promise<string[]> => {
    const lines: string[] = [];
    for (let from = 0; from < paths.length; from += PATHS_PER_CALL) {
      const result = await query("nix-store", [
        ...args,
        ...paths.slice(from, from + PATHS_PER_CALL),
      ]);
      if (result.exitCode !== 0) throw await failure("IO_FAILED", result);
      lines.push(...result.stdout.split("\n").filter((line) => line !== ""));
    }
    return lines;
  };
  const invalidPaths = (paths: readonly string[]): Promise<string[]> =>
    queryPaths(["--check-validity", "--print-invalid"], paths);

  /** The closures of those of these paths that are valid. */
  const requisites = async (paths: readonly string[]): Promise<Set<string>> => {
    const invalid = new Set(await invalidPaths(paths));
    const valid = paths.filter((path) => !invalid.has(path));
    return new Set(valid.length === 0 ? [] : await queryPaths(["--query", "--requisites"], valid));
  };

  /** Whether paths have the contents that they were registered with. */
  const areWhole = async (paths: readonly string[]): Promise<boolean> =>
    (
      await runProcess("nix-store", ["--verify-path", ...paths, ...storeOption, ...NIX_OPTIONS], {
        env: childEnvironment(),
        timeoutMs: settings.limits.importTimeout,
      })
    ).exitCode === 0;

  /**
   * Copies, and goes on with what is left where others became valid meanwhile: an import that
   * outlived its agent may be at the same paths, and Nix 2.8 fails over one that it finds valid.
   */
  const copyRest = async (
    directory: string,
    paths: readonly string[],
    signal: AbortSignal | undefined,
  ): Promise<void> => {
    try {
      await copy(directory, paths, signal);
    } catch (error) {
      if (signal?.aborted || (error instanceof PullError && error.code === "DISK_FULL"))
        throw error;
      const left = await invalidPaths(paths);
      if (left.length === paths.length) throw error;
      if (left.length > 0) await copyRest(directory, left, signal);
    }
  };

  return {
    invalidPaths,

    async flush() {
      // sync(1): the whole file system, which is quicker than file by file.
      const result = await runProcess("sync", ["-f", join(root ?? "/", STORE_DIRECTORY)], {
        env: childEnvironment(),
        timeoutMs: settings.limits.importTimeout,
      });
      if (result.exitCode !== 0) throw await failure("IO_FAILED", result);
    },

    async removeDamaged(paths) {
      const used = [profile, currentSystem, bootedSystem].map((path) =>
        storePathBehind(path, root),
      );
      const systems = (await Promise.all(used)).filter((path) => path !== null);
      const proven = await requisites(systems);
      const doubtful = [...(await requisites(paths))].filter((path) => !proven.has(path));
      const damaged: string[] = [];
      for (let from = 0; from < doubtful.length; from += PATHS_PER_VERIFICATION) {
        const some = doubtful.slice(from, from + PATHS_PER_VERIFICATION);
        if (await areWhole(some)) continue;
        // Which of them is only told in words.
        for (const path of some) if (!(await areWhole([path]))) damaged.push(path);
      }
      if (damaged.length === 0) return [];
      const referring = await queryPaths(["--query", "--referrers-closure"], damaged);
      const removed = [...new Set(referring)];
      await queryPaths(["--delete", "--ignore-liveness"], removed);
      return removed;
    },

    async importPaths(directory, paths, signal) {
      for (let from = 0; from < paths.length; from += PATHS_PER_CALL) {
        await copyRest(directory, paths.slice(from, from + PATHS_PER_CALL), signal);
      }
    },

    async setProfile(toplevel) {
      await profileCommand("--set", toplevel);
    },

    async restoreProfile(generation) {
      if (generation !== null) {
        await profileCommand("--switch-generation", String(generation));
        return;
      }
      await removeDurably(profile);
    },

    async pruneGenerations(keep) {
      await profileCommand("--delete-generations", `+${keep}`);
    },

    async profileToplevel() {
      return storePathBehind(profile, root);
    },

    async profileGeneration() {
      return generationNumber(await readLinkIfExists(profile), profile);
    },

    async findGeneration(wanted) {
      const current = generationNumber(await readLinkIfExists(profile), profile);
      const links = await ifMissing(readdir(dirname(profile)), []);
      const numbers = links
        .map((link) => generationNumber(link, profile))
        .filter((number) => number !== null)
        .filter((number) => (wanted === null ? number < (current ?? 0) : number === wanted))
        .sort((a, b) => b - a);
      for (const generation of numbers) {
        const toplevel = await storePathBehind(`${profile}-${generation}-link`, root);
        if (toplevel !== null) return { generation, toplevel };
      }
      return null;
    },

    async runningToplevel() {
      return storePathBehind(currentSystem, root);
    },

    async bootedToplevel() {
      return storePathBehind(bootedSystem, root);
    },

    realPath(storePath) {
      return root === null ? storePath : join(root, storePath);
    },
  };
}

/** The store path at the end of a chain of links, or null where it ends elsewhere or nowhere. */
async function storePathBehind(path: string, root: string | null): Promise<string | null> {
  let at = path;
  // Profile → generation → store path; a longer chain is not one that Nix made.
  for (let hops = 0; hops < 8; hops++) {
    if (isStorePath(at)) return at;
    const inRoot = root !== null && at.startsWith(`${root}/`) ? at.slice(root.length) : at;
    if (isStorePath(inRoot)) return inRoot;
    const target = await readLinkIfExists(at);
    if (target === null) return null;
    at = target.startsWith("/")
      ? target
      : join(await ifMissing(realpath(dirname(at)), dirname(at)), target);
  }
  return null;
}

/** The number in `PROFILE-NUMBER-link`, the name of a generation's link. */
function generationNumber(link: string | null, profile: string): number | null {
  if (link === null) return null;
  const prefix = `${basename(profile)}-`;
  const name = basename(link);
  const digits = name.startsWith(prefix) ? /^(\d+)-link$/.exec(name.slice(prefix.length)) : null;
  return digits ? Number(digits[1]) : null;
}

function isStorePath(path: string): boolean {
  const prefix = `${STORE_DIRECTORY}/`;
  return path.startsWith(prefix) && STORE_PATH_NAME.test(path.slice(prefix.length));
}

import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { NixStore } from "../../core/ports.ts";
import type { SizedPath } from "../../core/release/package-difference.ts";
import type { Settings } from "../../core/settings.ts";
import { inCalls } from "./nix-environment.ts";
import { NixPrograms } from "./nix-programs.ts";
import { storeAccess } from "./store-access.ts";
import { storePathBehind } from "./store-links.ts";
import { systemProfile } from "./system-profile.ts";

/** Paths verified by one call. If one of them is damaged, each is verified by itself. */
const PATHS_PER_VERIFICATION = 64;

/** The host's store and system profile, by way of Nix's own programs. */
export function nixStoreOf(
  settings: Pick<Settings, "store" | "paths" | "storeKeys" | "limits">,
): NixStore {
  const { profile, currentSystem, bootedSystem } = settings.paths;
  const nix = new NixPrograms(settings);
  const { root } = nix;
  return {
    ...systemProfile(profile, nix),
    access: () => storeAccess(settings),
    closureOf: (toplevel) => closureOf(nix, toplevel),
    invalidPaths: (paths) => invalidPaths(nix, paths),
    flush: () => nix.flush(),
    collectGarbage: (bytes, signal) => nix.collect(bytes, signal),
    async importPaths(directory, paths, signal) {
      for (const some of inCalls(paths)) await copyRest(nix, directory, some, signal);
    },
    async removeDamaged(paths) {
      const used = [profile, currentSystem, bootedSystem].map((path) =>
        storePathBehind(path, root),
      );
      const systems = (await Promise.all(used)).filter((path) => path !== null);
      const proven = await requisites(nix, systems);
      const doubtful = [...(await requisites(nix, paths))].filter((path) => !proven.has(path));
      return removeDamaged(nix, doubtful);
    },
    runningToplevel: () => storePathBehind(currentSystem, root),
    bootedToplevel: () => storePathBehind(bootedSystem, root),
    realPath: (storePath) => (root === null ? storePath : join(root, storePath)),
  };
}

function invalidPaths(nix: NixPrograms, paths: readonly string[]): Promise<string[]> {
  return nix.queryPaths(["--check-validity", "--print-invalid"], paths);
}

async function closureOf(nix: NixPrograms, toplevel: string): Promise<SizedPath[] | null> {
  const paths = [...(await requisites(nix, [toplevel]))];
  if (paths.length === 0) return null;
  // One line for each path, in their order (nix-store(1), --query --size).
  const sizes = await nix.queryPaths(["--query", "--size"], paths);
  return paths.map((storePath, at) => ({ storePath, narSize: Number(sizes[at] ?? 0) }));
}

/** The closures of those of these paths that are valid. */
async function requisites(nix: NixPrograms, paths: readonly string[]): Promise<Set<string>> {
  const invalid = new Set(await invalidPaths(nix, paths));
  const valid = paths.filter((path) => !invalid.has(path));
  if (valid.length === 0) return new Set();
  return new Set(await nix.queryPaths(["--query", "--requisites"], valid));
}

/**
 * Copies paths. If that fails and some of them are valid then, it goes on with the rest: an import
 * that outlived its agent may write the same paths, and Nix 2.8 fails when it finds one valid.
 */
async function copyRest(
  nix: NixPrograms,
  directory: string,
  paths: readonly string[],
  signal: AbortSignal | undefined,
): Promise<void> {
  try {
    await nix.copy(directory, paths, signal);
  } catch (error) {
    if (signal?.aborted || (error instanceof PullError && error.code === "DISK_FULL")) throw error;
    const left = await invalidPaths(nix, paths);
    if (left.length === paths.length) throw error;
    if (left.length > 0) await copyRest(nix, directory, left, signal);
  }
}

/** Removes those of these paths that are damaged, with what refers to them; gives what it removed. */
async function removeDamaged(nix: NixPrograms, paths: readonly string[]): Promise<string[]> {
  const damaged: string[] = [];
  for (let from = 0; from < paths.length; from += PATHS_PER_VERIFICATION) {
    const some = paths.slice(from, from + PATHS_PER_VERIFICATION);
    if (await nix.areWhole(some)) continue;
    // Nix names the damaged ones only in messages for people, so each is asked for.
    for (const path of some) if (!(await nix.areWhole([path]))) damaged.push(path);
  }
  if (damaged.length === 0) return [];
  const referring = await nix.queryPaths(["--query", "--referrers-closure"], damaged);
  const removed = [...new Set(referring)];
  await nix.queryPaths(["--delete", "--ignore-liveness"], removed);
  return removed;
}

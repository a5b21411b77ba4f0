import { readdir } from "node:fs/promises";
import { dirname } from "node:path";
import type { NixStore } from "../../core/ports.ts";
import { removeDurably, syncDirectory } from "../files/durable-file.ts";
import { ifMissing, readLinkIfExists } from "../files/missing-file.ts";
import type { NixPrograms } from "./nix-programs.ts";
import { generationNumber, storePathBehind } from "./store-links.ts";

type SystemProfile = Pick<
  NixStore,
  | "setProfile"
  | "restoreProfile"
  | "pruneGenerations"
  | "profileToplevel"
  | "profileGeneration"
  | "findGeneration"
>;

/** The system profile and its generations. */
export function systemProfile(profile: string, nix: NixPrograms): SystemProfile {
  const change = async (...args: string[]): Promise<void> => {
    const result = await nix.query("nix-env", ["--profile", profile, ...args]);
    if (result.exitCode !== 0) throw await nix.failure("PROFILE_FAILED", result);
    await syncDirectory(dirname(profile));
  };
  const currentGeneration = async (): Promise<number | null> =>
    generationNumber(await readLinkIfExists(profile), profile);
  return {
    setProfile: (toplevel) => change("--set", toplevel),
    async restoreProfile(generation) {
      if (generation === null) await removeDurably(profile);
      else await change("--switch-generation", String(generation));
    },
    pruneGenerations: (keep) => change("--delete-generations", `+${keep}`),
    profileToplevel: () => storePathBehind(profile, nix.root),
    profileGeneration: currentGeneration,
    async findGeneration(wanted) {
      const current = await currentGeneration();
      const links = await ifMissing(readdir(dirname(profile)), []);
      const numbers = links
        .map((link) => generationNumber(link, profile))
        .filter((number) => number !== null)
        .filter((number) => (wanted === null ? number < (current ?? 0) : number === wanted))
        .sort((a, b) => b - a);
      for (const generation of numbers) {
        const toplevel = await storePathBehind(`${profile}-${generation}-link`, nix.root);
        if (toplevel !== null) return { generation, toplevel };
      }
      return null;
    },
  };
}

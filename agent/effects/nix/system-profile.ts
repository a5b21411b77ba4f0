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
  | "splitGenerations"
  | "forgetNewer"
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
  /** Numbers of all generations, the newest first. */
  const generations = async (): Promise<number[]> =>
    (await ifMissing(readdir(dirname(profile)), []))
      .map((link) => generationNumber(link, profile))
      .filter((number) => number !== null)
      .sort((a, b) => b - a);
  const toplevelOf = (generation: number): Promise<string | null> =>
    storePathBehind(`${profile}-${generation}-link`, nix.root);
  const remove = async (numbers: readonly number[]): Promise<void> => {
    if (numbers.length > 0) await change("--delete-generations", ...numbers.map(String));
  };
  /** Numbers of those that `pruneGenerations` deletes. */
  const prunable = async (keep: number, spared: number | null): Promise<number[]> => {
    const kept = [await currentGeneration(), spared];
    return (await generations()).slice(keep).filter((number) => !kept.includes(number));
  };
  return {
    setProfile: (toplevel) => change("--set", toplevel),
    async restoreProfile(generation) {
      if (generation === null) await removeDurably(profile);
      else await change("--switch-generation", String(generation));
    },
    async pruneGenerations(keep, spared = null) {
      await remove(await prunable(keep, spared));
    },
    async splitGenerations(keep, spared = null) {
      const leaves = await prunable(keep, spared);
      const [staying, leaving]: [string[], string[]] = [[], []];
      for (const number of await generations()) {
        const toplevel = await toplevelOf(number);
        if (toplevel !== null) (leaves.includes(number) ? leaving : staying).push(toplevel);
      }
      return { staying, leaving };
    },
    async forgetNewer(toplevel, since) {
      const current = (await currentGeneration()) ?? 0;
      const newer: number[] = [];
      for (const number of await generations()) {
        if (number <= (since ?? current) || number === current) continue;
        if ((await toplevelOf(number)) === toplevel) newer.push(number);
      }
      await remove(newer);
    },
    profileToplevel: () => storePathBehind(profile, nix.root),
    profileGeneration: currentGeneration,
    async findGeneration(wanted, isPassedOver = () => false) {
      const current = await currentGeneration();
      const numbers = (await generations()).filter((number) =>
        wanted === null ? number < (current ?? 0) : number === wanted,
      );
      for (const generation of numbers) {
        const toplevel = await toplevelOf(generation);
        if (toplevel === null || (wanted === null && isPassedOver(toplevel))) continue;
        return { generation, toplevel };
      }
      return null;
    },
  };
}

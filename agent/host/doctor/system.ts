import { judgeBoot } from "../../core/doctor/boot.ts";
import { about, type CheckId, type CheckResult } from "../../core/doctor/result.ts";
import {
  judgeNixVersion,
  judgeStoreTrust,
  judgeSystem,
  judgeWayBack,
} from "../../core/doctor/store.ts";
import { judgeSynchronisation } from "../../core/doctor/time.ts";
import { AGENT_UNITS, judgeUnits } from "../../core/doctor/units.ts";
import type { AgentTools } from "../agent-tools.ts";
import { ROOT } from "../update/roots.ts";
import type { Trial, TryTools } from "./trying.ts";

type Results = readonly CheckResult[];

/** What trying the system takes. */
export type SystemTools = TryTools &
  Pick<AgentTools, "settings" | "store" | "roots" | "bootLoader" | "disk">;

/** The clock, units, Nix and its store, and what the host boots from. */
export function trySystem(tools: SystemTools, trial: Trial): Promise<Results>[] {
  const { settings, store, examination } = tools;
  return [
    trial.of("clock.synchronised", async () =>
      judgeSynchronisation(await examination.clock(), settings.clock),
    ),
    trial.of("units.agent", async () => judgeUnits(await examination.units(AGENT_UNITS))),
    trial.of("store.nix", async () => judgeNixVersion(await examination.nixVersion())),
    trial.of("store.trust", () => tryTrust(tools, trial)),
    tryKnown("store.profile", () => store.profileToplevel(), tools, trial),
    tryKnown("store.running", () => store.runningToplevel(), tools, trial),
    trial.of("store.way-back", () => tryWayBack(tools)),
    trial.of("boot.loader", () => tryBoot(tools)),
  ];
}

/** Whether Nix takes what our keys signed, from the user as whom the agent runs. */
async function tryTrust({ settings, store }: SystemTools, { isRoot }: Trial): Promise<CheckResult> {
  if (isRoot) return judgeStoreTrust(await store.access(), settings.storeKeys);
  const why = "the agent asks as root, and Nix tells each user only whether it trusts that one";
  return about("store.trust").untried(why, "run it as root");
}

function tryKnown(
  id: CheckId,
  toplevelOf: () => Promise<string | null>,
  { store }: SystemTools,
  trial: Trial,
): Promise<Results> {
  return trial.of(id, async () => {
    const toplevel = await toplevelOf();
    const invalid = toplevel === null ? [] : await store.invalidPaths([toplevel]);
    return judgeSystem(id, toplevel, invalid.length === 0);
  });
}

/** Systems that this host could go back to: an earlier generation, and what the agent's roots hold. */
async function tryWayBack({ store, roots }: SystemTools): Promise<CheckResult> {
  const current = await store.profileToplevel();
  const earlier = await store.findGeneration(null);
  const held = await Promise.all([ROOT.previousProfile, ROOT.previous].map((it) => roots.held(it)));
  const others = [
    ...(earlier ? [{ what: `generation ${earlier.generation}`, toplevel: earlier.toplevel }] : []),
    ...held.flatMap((toplevel) =>
      toplevel === null || toplevel === current ? [] : [{ what: toplevel, toplevel }],
    ),
  ];
  const invalid =
    others.length === 0 ? [] : await store.invalidPaths(others.map(({ toplevel }) => toplevel));
  return judgeWayBack(
    others.map(({ what, toplevel }) => ({ what, isValid: !invalid.includes(toplevel) })),
    (await store.profileGeneration()) ?? 0,
  );
}

async function tryBoot({
  settings,
  store,
  bootLoader,
  disk,
  examination,
}: SystemTools): Promise<Results> {
  const loader = await bootLoader.look();
  const place = await bootLoader.kernelPlace();
  const directory = settings.paths.boot ?? place?.directory ?? null;
  return judgeBoot({
    ...{ loader, directory },
    file: directory === null ? null : await examination.file(directory),
    mount: directory === null ? null : await examination.mount(directory),
    fstab: await examination.fstab(),
    free: directory === null ? 0 : (await disk.freeSpace(directory)).free,
    kernelBytes: await kernelBytes(await store.runningToplevel(), { store, examination }),
  });
}

/** Bytes of a system's kernel and initrd; null if it has none. */
async function kernelBytes(
  toplevel: string | null,
  { store, examination }: Pick<SystemTools, "store" | "examination">,
): Promise<number | null> {
  if (toplevel === null) return null;
  const files = await Promise.all(
    ["kernel", "initrd"].map((name) => examination.file(`${store.realPath(toplevel)}/${name}`)),
  );
  if (files.every((it) => it === null)) return null;
  return files.reduce((sum, it) => sum + (it?.size ?? 0), 0);
}

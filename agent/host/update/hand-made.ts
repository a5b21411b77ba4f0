import { changesRunningSystem, setsProfile } from "../../core/update/activation.ts";
import type { AgentRecord } from "../../core/update/record.ts";
import type { State, StateName, StateOf } from "../../core/update/states.ts";
import type { AgentTools } from "../agent-tools.ts";
import { activeToplevel, observe } from "../observe.ts";
import { wasCutOff } from "./cut-off.ts";
import type { Happening } from "./happening.ts";

/** What it takes to see what a person did. */
export type HandMadeTools = Pick<
  AgentTools,
  "store" | "systems" | "services" | "settings" | "clock"
>;

/** Systems that somebody else than the agent put in place since the way back was recorded. */
export interface HandMade {
  /** What the profile was pointed at: `nixos-rebuild switch` and `boot` do that. */
  readonly profile: string | null;
  /** What was switched to, as `nixos-rebuild switch` and `test` do. */
  readonly running: string | null;
}

/** States between the recorded system and the release's. */
export type BetweenSystems = Extract<
  StateName,
  "Staged" | "Activating" | "Verifying" | "Committing" | "RollingBack"
>;

/**
 * What a person changed while the agent was at work, or away. A system that the agent neither
 * comes from nor goes to can only be somebody else's; while a release is judged, so is every
 * system that runs but the release's. What a boot started is an act of a person only if somebody
 * made another system the boot default before. It cannot be seen if somebody switched to one of
 * the agent's own two systems.
 */
export async function handMade(
  state: StateOf<BetweenSystems>,
  record: AgentRecord,
  tools: HandMadeTools,
): Promise<HandMade> {
  const { release, baseline } = state;
  const { profile, booted = null } = await observe(tools, release.toplevel);
  const own = new Set<string | null>([null, baseline.profile, baseline.running]);
  const { unfinishedWayBack, pendingReboot, denied } = record;
  // A system that failed before may have run when the way back was recorded.
  const known = [release, unfinishedWayBack?.release, pendingReboot?.release, ...denied];
  for (const one of known) {
    if (!one) continue;
    const { toplevel, specialisation } = one;
    own.add(toplevel);
    if (typeof specialisation !== "string") continue;
    own.add(await activeToplevel({ toplevel, specialisation }, tools).catch(() => toplevel));
  }
  const afterBoot = state.name === "Verifying" && state.afterBoot;
  const isBooted = booted === release.toplevel;
  // Calling a boot off leaves alone what runs, unless that is what was booted.
  const isCallOff = state.name === "RollingBack" && state.reason.code === "BOOT_CALLED_OFF";
  const runs = (changesRunningSystem(release.mode) && !isCallOff) || isBooted || afterBoot;
  const isOther = runs && (await runsOther(state, own, tools));
  const running = await tools.store.runningToplevel();
  const found = { running, booted, profile, isOwnProfile: own.has(profile) };
  return {
    profile: setsProfile(release.mode) && !own.has(profile) ? profile : null,
    running: isOther && !(await isByBoot(state, found, tools)) ? running : null,
  };
}

/** Whether another system runs than one that the agent may have left in this state. */
async function runsOther(
  state: StateOf<BetweenSystems>,
  own: ReadonlySet<string | null>,
  tools: HandMadeTools,
): Promise<boolean> {
  if (state.name !== "Verifying") return !own.has(await tools.store.runningToplevel());
  const { release, afterBoot } = state;
  const { running, specialisation } = await observe(tools, release.toplevel);
  if (running === null) return false;
  // A boot starts the system itself.
  return running !== release.toplevel || (!afterBoot && specialisation !== release.specialisation);
}

/** What the host is, as far as it says who started what runs. */
interface Found {
  readonly running: string | null;
  readonly booted: string | null;
  readonly profile: string | null;
  /** Whether the profile is a system that the agent comes from or goes to. */
  readonly isOwnProfile: boolean;
}

/**
 * Whether it was a boot that started what runs, or may have been, and nobody had chosen another
 * boot default for it.
 */
async function isByBoot(
  state: StateOf<BetweenSystems>,
  { running, booted, profile, isOwnProfile }: Found,
  { services }: Pick<AgentTools, "services">,
): Promise<boolean> {
  if (state.name === "Verifying" && state.afterBoot) {
    const { release, baseline, trial } = state;
    const left = trial ? baseline.profile : release.toplevel;
    return booted !== release.toplevel && profile === left;
  }
  if (!(await wasCutOff(state, { services }))) return false;
  if (running === profile && !isOwnProfile) return false;
  return booted === null || booted === running;
}

/** Whether a state lies between two systems. */
function isBetween(state: State): state is StateOf<BetweenSystems> {
  return ["Staged", "Activating", "Verifying", "Committing", "RollingBack"].includes(state.name);
}

/**
 * What a state leads to if somebody changed the host by hand so that the agent must not go on;
 * null if it may. Nothing is undone and nothing denied, and the drift policy decides.
 */
export async function changedByHand(
  state: State,
  record: AgentRecord,
  tools: HandMadeTools,
): Promise<Happening | null> {
  if (state.name === "Reverting") return revertChanged(state, tools);
  if (!isBetween(state)) return null;
  const made = await handMade(state, record, tools);
  return isInTheWay(state.name, made) ? leftToHand(state, made, tools) : null;
}

/** Whether a state cannot go on without undoing what a person did. */
function isInTheWay(name: BetweenSystems, { profile, running }: HandMade): boolean {
  switch (name) {
    case "Staged":
      return profile !== null || running !== null;
    // The boot default is left alone here. If only that is another one, the release that runs, or
    // half runs, is still the agent's to judge, or to lead back from.
    case "Activating":
    case "Verifying":
      return running !== null;
    // Another running system is left alone here.
    case "Committing":
      return profile !== null;
    // The step itself restores what a person did not change.
    case "RollingBack":
      return false;
    default:
      return name satisfies never;
  }
}

/** The event of a release that is left because of what somebody did by hand. */
export function leftToHand(
  { name, release }: Pick<StateOf<BetweenSystems>, "name" | "release">,
  made: HandMade,
  tools: Pick<AgentTools, "settings" | "clock">,
): Happening {
  const { settings, clock } = tools;
  const isKept = settings.drift === "keep";
  const then = isKept ? "this host is left as it is" : "the release is activated again";
  return {
    type: "ChangedByHand",
    reason: {
      code: "CHANGED_BY_HAND",
      message: `${describeHandMade(made)} while release ${release.sequence} was ${DOING[name]}; ${then}`,
    },
    retryAt: clock.now().toISOString(),
    ...(isKept && { gaveUp: true }),
  };
}

/** Says for people what somebody did. */
export function describeHandMade({ profile, running }: HandMade): string {
  if (running === null) return `somebody made ${profile} the boot default`;
  const alsoBoots = profile === running ? ", the boot default too," : "";
  const boots =
    profile !== null && profile !== running ? ` and made ${profile} the boot default` : "";
  return `somebody switched to ${running}${alsoBoots}${boots}`;
}

/** What the agent does in a state, in the passive. */
const DOING: Readonly<Record<BetweenSystems, string>> = {
  Staged: "prepared",
  Activating: "activated",
  Verifying: "judged",
  Committing: "committed",
  RollingBack: "undone",
};

/** What a rollback by hand leads to if somebody else chose another system meanwhile. */
async function revertChanged(
  { from, target }: StateOf<"Reverting">,
  { store, clock }: HandMadeTools,
): Promise<Happening | null> {
  const profile = await store.profileToplevel();
  if (profile === null || profile === from || profile === target.toplevel) return null;
  const message =
    `somebody made ${profile} the boot default while this host was rolled back to ` +
    `${target.toplevel}; it is left as it is`;
  return {
    type: "ChangedByHand",
    reason: { code: "CHANGED_BY_HAND", message },
    retryAt: clock.now().toISOString(),
  };
}

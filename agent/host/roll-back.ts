import { PullError } from "../core/errors.ts";
import { denialOf, type AgentRecord } from "../core/update/record.ts";
import type { KnownReason, State } from "../core/update/states.ts";
import type { AgentTools } from "./agent-tools.ts";
import { observe } from "./observe.ts";
import { withUpdateLock } from "./update-lock.ts";
import { Journal, type JournalTools } from "./update/journal.ts";
import { finishBegun, isBarred, owesWayBack, retryWayBack } from "./update/resume.ts";
import { ROOT } from "./update/roots.ts";
import { runSteps } from "./update/run.ts";
import type { StepTools } from "./update/steps/steps.ts";

/** What a rollback takes. */
export type RollbackTools = StepTools & JournalTools & Pick<AgentTools, "locks">;

/** A generation of the system profile. */
interface Generation {
  readonly toplevel: string;
  /** Null for a system that the profile has no generation of any more. */
  readonly generation: number | null;
}

/** What a rollback came to. */
interface RolledBack extends Generation {
  /** Whether it takes full effect only with a reboot, which is left to the person. */
  readonly needsReboot: boolean;
}

/**
 * Goes back to the profile's previous generation (or `generation`) and denies the system that
 * is left, so that the next poll does not bring it back. Gives where the host is now. Throws
 * NOTHING_TO_ROLL_BACK, NOT_A_SYSTEM, PROFILE_FAILED, ROLLBACK_FAILED, AGENT_BUSY, …
 */
export async function rollBackByHand(
  tools: RollbackTools,
  generation: number | null,
): Promise<RolledBack> {
  return withUpdateLock(tools, async () => {
    const journal = new Journal(await tools.state.load(), tools);
    const pass = { journal, tools, signal: undefined };
    const unfinished = await finishBegun(pass);
    if (unfinished && !isOverridden(journal.record.state, generation)) throw unfinished;
    // A way back that is owed leads where the person wants to go. If it fails, another may not.
    const isOwed = owesWayBack(journal.record);
    await retryWayBack(pass);
    if (isOwed && !owesWayBack(journal.record) && generation === null) {
      const back = await tools.store.findGeneration(await tools.store.profileGeneration());
      if (back !== null) return withReboot(back, tools);
    }
    const profile = await tools.store.profileToplevel();
    const left = await leftBeside(journal.record, tools);
    const stays =
      left !== null && generation === null
        ? await tools.store.findGeneration(await tools.store.profileGeneration())
        : null;
    const target = stays ?? (await findTarget(journal.record, { generation, left }, tools));
    const from = stays ? left : profile;
    const message = `rolled back by hand from ${left ?? from ?? "no system"} to ${target.toplevel}`;
    const reason: KnownReason = { code: "RELEASE_DENIED", message };
    await tools.roots.hold(ROOT.chosen, target.toplevel);
    const leaving = left === null ? {} : { left };
    await journal.happened({ type: "RevertBegun", from, ...leaving, target, reason });
    const error = await runSteps(pass);
    if (error) throw error;
    return withReboot({ ...target, generation: await tools.store.profileGeneration() }, tools);
  });
}

/** Where the host is now, and whether that takes a reboot. */
async function withReboot(
  target: Generation,
  { store, boot }: Pick<RollbackTools, "store" | "boot">,
): Promise<RolledBack> {
  const running = await store.runningToplevel();
  const isAway = running !== null && running !== target.toplevel;
  return { ...target, needsReboot: isAway || (await boot.needsReboot(target.toplevel)) };
}

/**
 * Whether a person may choose a generation although the agent did not finish what it began: if
 * another generation that they chose does not come up, or if the way back is barred and they name
 * one.
 */
function isOverridden(state: State, generation: number | null): boolean {
  return state.name === "Reverting" || (generation !== null && isBarred(state));
}

/**
 * The system that a person leaves if that is not what the profile points at: one that waits for
 * its trial, one that failed and runs until a boot leads back, or one that runs in the mode
 * `test`. The way back from it ends at the profile. Null if it is the profile's own.
 */
async function leftBeside(
  { state, pendingReboot, committed }: AgentRecord,
  tools: Pick<AgentTools, "store" | "systems">,
): Promise<string | null> {
  if (state.name === "RollingBack") return state.release.toplevel;
  const { profile, running } = await observe(tools, committed?.toplevel);
  if (pendingReboot?.trial) return pendingReboot.release.toplevel;
  const candidates = [
    pendingReboot?.wayBack ? pendingReboot.release : null,
    committed?.mode === "test" ? committed : null,
  ];
  const runs = candidates.find((it) => it?.toplevel === running);
  return runs && running !== profile ? running : null;
}

/**
 * The generation to go back to. A system that failed here, that a person left, or that waits for
 * its first boot is gone to only if its number is asked for. Throws NOTHING_TO_ROLL_BACK,
 * NOT_A_SYSTEM.
 */
async function findTarget(
  record: AgentRecord,
  { generation, left }: { readonly generation: number | null; readonly left: string | null },
  tools: Pick<AgentTools, "store" | "activator" | "roots">,
): Promise<Generation> {
  const { store, activator } = tools;
  const passedOver = new Set<string>();
  const isPassedOver = (toplevel: string): boolean => {
    const isUnproven = pendingToplevel(record) === toplevel;
    const isDenied = denialOf(record, { toplevel }) !== undefined;
    if (isUnproven || isDenied) passedOver.add(toplevel);
    return isUnproven || isDenied;
  };
  const found = await store.findGeneration(generation, isPassedOver);
  const target = found ?? (generation === null ? await heldBack(isPassedOver, tools) : null);
  if (!target) throw new PullError("NOTHING_TO_ROLL_BACK", whyNone(generation, passedOver));
  const isCurrent =
    target.generation !== null && target.generation === (await store.profileGeneration());
  if (isCurrent && left === null) {
    throw new PullError(
      "NOTHING_TO_ROLL_BACK",
      `generation ${target.generation} is the current one`,
    );
  }
  if (!(await activator.canActivate(target.toplevel))) {
    throw new PullError("NOT_A_SYSTEM", `${target.toplevel} has no bin/switch-to-configuration`);
  }
  return target;
}

/** The system whose first boot is waited for, so that nothing has proven it yet. */
function pendingToplevel({ pendingReboot }: AgentRecord): string | null {
  return pendingReboot === null || pendingReboot.wayBack ? null : pendingReboot.release.toplevel;
}

/** Why there is no generation to go back to, for people. */
function whyNone(generation: number | null, passedOver: ReadonlySet<string>): string {
  if (generation !== null) return `the system profile has no generation ${generation}`;
  const none = "the system profile has no generation before the current one";
  if (passedOver.size === 0) return none;
  return (
    `${none} but of systems that failed here, that a person left, or that no boot has proven: ` +
    `${[...passedOver].join(", ")}; "nixos-pull rollback --generation N" goes to one all the same`
  );
}

/**
 * The system before this one, held by the agent's own root: generations may all have been
 * deleted. Null if no other system is held.
 */
async function heldBack(
  isPassedOver: (toplevel: string) => boolean,
  { store, roots }: Pick<AgentTools, "store" | "roots">,
): Promise<Generation | null> {
  const toplevel = await roots.held(ROOT.previous);
  if (toplevel === null || toplevel === (await store.profileToplevel())) return null;
  if (isPassedOver(toplevel)) return null;
  return (await store.invalidPaths([toplevel])).length > 0 ? null : { toplevel, generation: null };
}

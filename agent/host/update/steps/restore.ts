import { toPullError } from "../../../core/errors.ts";
import type { ActivationMode } from "../../../core/formats/manifest.ts";
import {
  changesRunningSystem,
  planRollback,
  setsProfile,
  spareInRollback,
  type RollbackPlan,
} from "../../../core/update/activation.ts";
import { MAX_WAIT_MS, nextTry } from "../../../core/update/blame.ts";
import { differ } from "../../../core/update/inhibitors.ts";
import type { Observation } from "../../../core/update/observation.ts";
import type { AgentRecord, FailingSnippets } from "../../../core/update/record.ts";
import type { Baseline, StateOf } from "../../../core/update/states.ts";
import { failureOf } from "../../../core/update/switch-verdict.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { observe } from "../../observe.ts";
import {
  describeHandMade,
  handMade,
  leftToHand,
  type HandMade,
  type HandMadeTools,
} from "../hand-made.ts";
import type { Happening } from "../happening.ts";
import { runLateHook, type LateHookTools } from "../hooks.ts";
import type { Details } from "../journal.ts";
import { forgetUnproven, removeLeftovers, type LeftoverTools } from "../leftovers.ts";
import { restoreProfile } from "../restore-profile.ts";
import { restoreUnits, type UnitTools } from "../restore-units.ts";
import type { RetryTools } from "../retry.ts";
import type { Step, StepContext, StepResult } from "../step.ts";
import { runSwitch, type SwitchOrder, type SwitchRun, type SwitchTools } from "../switch-run.ts";

/** What going back takes. */
export type RollBackTools = SwitchTools &
  UnitTools &
  HandMadeTools &
  Pick<AgentTools, "boot" | "bootLoader">;

/**
 * Restores the system that was recorded before the activation. Nothing vetoes that: the old
 * system's pre-switch checks are off. What a live switch cannot do, a boot of it does. What a
 * person changed meanwhile is left as it is.
 */
export const rollBack: Step<"RollingBack", RollBackTools> = async (state, context, tools) => {
  const made = await handMade(state, context.record, tools);
  const result = await restoreAllBut(made, { state, context }, tools);
  if (result.event.type !== "RollbackFailed") return result;
  const now = await handMade(state, context.record, tools);
  const isNews = now.profile !== made.profile || now.running !== made.running;
  return isNews ? restoreAllBut(now, { state, context }, tools) : result;
};

/** Restores what was recorded, but for what a person made. */
async function restoreAllBut(
  made: HandMade,
  { state, context }: Pick<Standing, "state" | "context">,
  tools: RollBackTools,
): Promise<StepResult> {
  const { release, baseline } = state;
  const { store, services, boot } = tools;
  const host = await observe(tools);
  if (setsProfile(release.mode)) await tools.bootLoader.cancelTrial();
  // A boot that was called off, and did not come: what runs is left as it is.
  const isCallOff = state.reason.code === "BOOT_CALLED_OFF" && host.booted !== release.toplevel;
  if (state.trial) {
    // Profile and boot default never changed: the next boot leads back, if that did not happen.
    const rebootFrom = await services.bootId();
    const isThere = isCallOff || host.running !== release.toplevel;
    const isMade = made.running !== null || made.profile !== null;
    if (isThere && isMade) return { event: leftToHand(state, made, tools) };
    return { event: { type: "RollbackSucceeded", ...(!isThere && { rebootFrom }) } };
  }
  // A system that was booted runs now, though its mode alone would not have made it so.
  const booted = release.mode === "boot" && host.running === release.toplevel;
  const mode = isCallOff ? "boot" : booted ? "switch" : release.mode;
  const spared = { profile: made.profile !== null, running: made.running !== null };
  const isSpared = spared.profile || spared.running;
  const plan = spareInRollback(planRollback(mode, baseline), spared);
  if (plan.restoreProfile && host.profile !== baseline.profile) {
    await restoreProfile(baseline, store);
  }
  if (plan.restoreProfile && baseline.generation !== null) {
    // The installer copies the kernels of all generations; there may be no room for this one's.
    await forgetUnproven(state, tools);
  }
  const way: WayBack = {
    // A host that booted the new kernel leaves it only by another boot.
    needsBoot:
      host.booted === release.toplevel &&
      !spared.running &&
      baseline.profile !== null &&
      (await boot.needsReboot(baseline.profile)),
    warnings: [],
    details: {},
    activated: null,
  };
  for (const run of plan.runs) {
    const failure = await goBack(run, way, { host, state, context, made }, tools);
    if (failure !== null) {
      return { event: { type: "RollbackFailed", message: failure }, details: way.details };
    }
  }
  if (isSpared) way.warnings.push(`${describeHandMade(made)}; that is left as it is`);
  if (!way.needsBoot && !spared.running && !isCallOff) {
    way.warnings.push(...(await restoredUnits(baseline, tools)));
  }
  for (const warning of way.warnings) tools.log.warn(`way back: ${warning}`);
  if (isSpared && !way.needsBoot) {
    return { event: leftToHand(state, made, tools), details: way.details };
  }
  return {
    event: {
      type: "RollbackSucceeded",
      ...(way.needsBoot && { rebootFrom: await services.bootId() }),
      ...(way.warnings.length > 0 && { message: way.warnings.join("; ") }),
      ...(way.activated && { activated: way.activated }),
    },
    details: way.details,
  };
}

/** What is not as it was with units. The system is back, whether or not that can be seen. */
async function restoredUnits(baseline: Baseline, tools: UnitTools): Promise<string[]> {
  try {
    const missing = await restoreUnits(baseline, tools);
    return missing.length > 0 ? [`not active as before: ${missing.join(", ")}`] : [];
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code === "INTERRUPTED") throw error;
    return [`units that were active before could not be restored: ${error.message}`];
  }
}

/** What came of a way back so far. */
interface WayBack {
  needsBoot: boolean;
  readonly warnings: string[];
  details: Details;
  activated: FailingSnippets | null;
}

/** Where a way back stands. */
interface Standing {
  readonly host: Observation;
  readonly state: StateOf<"RollingBack">;
  readonly context: StepContext;
  readonly made: HandMade;
}

/** Makes one run of the way back; gives why it has to be tried again, or null. */
async function goBack(
  { toplevel, mode }: RollbackPlan["runs"][number],
  way: WayBack,
  standing: Standing,
  tools: RollBackTools,
): Promise<string | null> {
  const { host, state, context, made } = standing;
  // Whoever held the lock may have switched to another system.
  const isMoot = async (): Promise<boolean> => {
    const now = await handMade(state, context.record, tools);
    return now.profile !== made.profile || now.running !== made.running;
  };
  const order = { toplevel, ranBefore: null, knownSnippets: [], unchecked: true, isMoot };
  if (changesRunningSystem(mode) && (await isInhibited(host.running, toplevel, tools))) {
    way.warnings.push(`a switch inhibitor differs, so that a boot leads back to ${toplevel}`);
    return goBackByBoot({ order, mode, way, context }, tools);
  }
  tools.log.warn(`going back: ${toplevel}, ${mode}`);
  const run = await runSwitch({ ...order, action: mode }, context.signal, tools);
  way.details = run.details;
  const { verdict } = run;
  switch (verdict.kind) {
    case "activated":
      // A boot loader runs no activation script, and says nothing about its snippets.
      if (changesRunningSystem(mode)) way.activated = run.activated;
      return null;
    case "activatedWithWarnings":
    case "unitsFailed":
    case "activationFailed":
      // What fails in the old system did not fail because of the way back, which is at its end.
      way.activated = run.activated;
      way.warnings.push(`${toplevel}: ${verdict.message}`);
      return null;
    case "rebootNeeded":
      way.needsBoot = true;
      return null;
    case "notBegun":
    case "interrupted":
    case "halfDone": {
      const failure = `${toplevel} ${mode}: ${verdict.message}`;
      const isTriedAgain = verdict.kind !== "halfDone" && state.rollbackAttempts < LIVE_TRIES;
      if (mode === "boot" || isTriedAgain || !tools.services.canReboot) return failure;
      way.warnings.push(`the live way back failed, so that a boot leads back: ${failure}`);
      return goBackByBoot({ order, mode, way, context }, tools);
    }
    default:
      return verdict satisfies never;
  }
}

/** A live way back that was kept from beginning is tried this often before a boot. */
const LIVE_TRIES = 2;

/** A way back that takes a boot: the switch, and what it was to be as a live one. */
interface BootBack {
  readonly order: Omit<SwitchOrder, "action">;
  readonly mode: ActivationMode;
  readonly way: WayBack;
  readonly context: StepContext;
}

/** Makes a system the boot default, if the way there changed that, and asks for a boot. */
async function goBackByBoot(
  { order, mode, way, context }: BootBack,
  tools: RollBackTools,
): Promise<string | null> {
  const { toplevel } = order;
  way.needsBoot = true;
  if (!setsProfile(mode)) return null;
  tools.log.warn(`going back: ${toplevel}, boot`);
  const { verdict, details } = await runSwitch({ ...order, action: "boot" }, context.signal, tools);
  way.details = details;
  const failure = failureOf(verdict);
  return failure === null ? null : `${toplevel} boot: ${failure}`;
}

/** Whether the switch inhibitors of two systems speak against a live switch. */
async function isInhibited(
  running: string | null,
  toplevel: string,
  { systems }: Pick<AgentTools, "systems">,
): Promise<boolean> {
  if (running === null || running === toplevel) return false;
  return differ(await systems.inhibitors(running), await systems.inhibitors(toplevel));
}

/** What ending a way back takes. */
export type EndRollBackTools = LeftoverTools & LateHookTools & RetryTools;

/** Removes what the release that was left needed. */
export const endRollBack: Step<"RolledBack", EndRollBackTools> = async (state, context, tools) => {
  const { release, reason, baseline } = state;
  if (setsProfile(release.mode)) await forgetUnproven(state, tools);
  await removeLeftovers(context.record, tools);
  if (reason.code === "BOOT_CALLED_OFF") {
    tools.log.info(`the next boot starts ${baseline.profile ?? "no system"} again`);
  } else tools.log.warn(`release ${release.sequence} was rolled back`);
  await runLateHook(
    "postRollback",
    {
      ...{ release, toplevel: baseline.profile, previous: release.toplevel },
      ...{ result: "rolled-back", code: reason.code },
    },
    context,
    tools,
  );
  return { event: nextAttempt(state, context.record, tools) };
};

/** When the system is tried again; the machine forgets that for one that is denied. */
function nextAttempt(
  { release, reason, undone = 0 }: StateOf<"RolledBack">,
  { pendingReboot }: AgentRecord,
  { settings, clock }: RetryTools,
): Extract<Happening, { type: "LeftoversRemoved" }> {
  const takesReboot =
    release.mode === "boot" || pendingReboot !== null || reason.code === "BOOT_NOT_TRIED";
  const { attempts: most, retryWait } = settings.activation;
  const wait = nextTry(undone + 1, takesReboot, { attempts: most, wait: retryWait });
  return {
    type: "LeftoversRemoved",
    retryAt: new Date(clock.now().getTime() + (wait ?? MAX_WAIT_MS)).toISOString(),
    ...(wait === null && { gaveUp: true }),
  };
}

/** What going back by hand takes. */
export type RevertTools = SwitchTools &
  LeftoverTools &
  LateHookTools &
  Pick<AgentTools, "store" | "systems" | "services" | "boot" | "bootLoader">;

/** Why a rollback by hand has to be tried again; null if it is done. */
function revertFailure({ verdict }: SwitchRun): string | null {
  // What fails in the system that a person chose is theirs to know.
  return verdict.kind === "activationFailed" ? null : failureOf(verdict);
}

/** Switches to the generation that a person chose; if no live switch can, a boot will. */
export const revert: Step<"Reverting", RevertTools> = async (state, context, tools) => {
  const { from } = state;
  const { toplevel, generation } = state.target;
  const { store, log } = tools;
  // First of all: a power cut in the middle of this must not start what the person leaves.
  await tools.bootLoader.cancelTrial().catch((thrown: unknown) => {
    const { code, message } = toPullError(thrown);
    log.warn(message, { code });
  });
  const isProfile =
    (await store.profileToplevel()) === toplevel &&
    (generation === null || (await store.profileGeneration()) === generation);
  if (!isProfile) await restoreProfile({ profile: toplevel, generation }, store);
  log.info(`activating ${toplevel}, generation ${generation ?? "new"}`);
  const running = await store.runningToplevel();
  const order = { toplevel, ranBefore: null, knownSnippets: [], unchecked: true };
  let isBoot = await isInhibited(running, toplevel, tools);
  let run = await runSwitch(
    { ...order, action: isBoot ? "boot" : "switch" },
    context.signal,
    tools,
  );
  let failure = revertFailure(run);
  let live: string | null = null;
  if (failure !== null && !isBoot && state.failures >= LIVE_TRIES && tools.services.canReboot) {
    live = `the live switch failed: ${failure}`;
    isBoot = true;
    run = await runSwitch({ ...order, action: "boot" }, context.signal, tools);
    failure = revertFailure(run);
  }
  const { verdict, details, activated } = run;
  if (failure !== null) {
    return { event: { type: "RevertFailed", message: `${toplevel}: ${failure}` }, details };
  }
  const needsBoot = isBoot || verdict.kind === "rebootNeeded";
  const needsReboot = needsBoot || (await tools.boot.needsReboot(toplevel));
  const effect = needsBoot
    ? `${toplevel} takes effect with a reboot`
    : needsReboot
      ? `${toplevel} takes full effect with a reboot`
      : "message" in verdict
        ? verdict.message
        : null;
  const message = live === null ? effect : `${effect}; ${live}`;
  if (message !== null) log.warn(message);
  // Where a person went to is where the host is: nothing is owed to it any more.
  const { pendingReboot } = context.record;
  await removeLeftovers({ pendingReboot }, tools);
  const facts = { release: null, toplevel, previous: from, result: "reverted" } as const;
  await runLateHook("postRollback", facts, context, tools);
  return {
    event: {
      type: "RevertSucceeded",
      ...(message !== null && { message }),
      ...(needsReboot && { needsReboot }),
      ...(!needsBoot && { activated }),
    },
    details,
  };
};

import { setsProfile } from "../../../core/update/activation.ts";
import { judgeBootDefault } from "../../../core/update/health.ts";
import { snippetsOf } from "../../../core/update/record.ts";
import type { StateOf } from "../../../core/update/states.ts";
import { failureOf, type SwitchVerdict } from "../../../core/update/switch-verdict.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { observe } from "../../observe.ts";
import { armBootDeadline, type DeadlineTools } from "../arm-deadline.ts";
import { describeHandMade, handMade, type HandMadeTools } from "../hand-made.ts";
import { halfDone, interrupted, rejected, type Happening } from "../happening.ts";
import { runLateHook, type LateHookTools } from "../hooks.ts";
import { forgetUnproven, removeLeftovers, type LeftoverTools } from "../leftovers.ts";
import { isProfileMade, leaveBootDefault, provenBoot } from "../leave-boot-default.ts";
import { NOT_BEGUN_CODES } from "../not-begun.ts";
import { restoreProfile } from "../restore-profile.ts";
import { attemptFailed, retryAt, type RetryTools } from "../retry.ts";
import { ROOT } from "../roots.ts";
import type { Step, StepContext } from "../step.ts";
import { runSwitch, type SwitchTools } from "../switch-run.ts";
import { armTrial, type TrialTools } from "./arm-trial.ts";

/** What committing takes. */
export type CommitTools = SwitchTools & DeadlineTools & TrialTools & RetryTools & HandMadeTools;

/**
 * Makes the system the boot default. One that only a boot can prove is tried by one boot first,
 * if the boot loader can.
 */
export const commit: Step<"Committing", CommitTools> = async (state, context, tools) => {
  const { release, rebootNeeded, baseline, tried = false } = state;
  const { store, services, settings } = tools;
  // A boot that was to try another system would pass this one by.
  const { pendingReboot } = context.record;
  if (pendingReboot?.trial) {
    await tools.bootLoader.cancelTrial();
    // Nor may a later way back end at it: nothing has proven it.
    await forgetUnproven(pendingReboot, tools);
  }
  const arming = rebootNeeded ? await armTrial(state, context, tools) : null;
  if (arming !== null && "event" in arming) return arming;
  if ((await store.profileToplevel()) !== release.toplevel) {
    await store.setProfile(release.toplevel);
  }
  const { keep } = settings.generations;
  // Before the installer, which copies the kernels of all generations.
  if (keep !== undefined) await store.pruneGenerations(keep, baseline.generation);
  // A power cut may have brought the old system back after the new one was proven.
  const { running } = await observe(tools, release.toplevel);
  const isAway = running !== null && running !== release.toplevel;
  const isLeft = (await handMade(state, context.record, tools)).running !== null;
  const proven = release.mode === "switch" && !rebootNeeded && !tried;
  const action = proven && isAway && !isLeft ? "switch" : "boot";
  const order = {
    ...({ toplevel: release.toplevel, action } as const),
    ranBefore: await store.runningToplevel(),
    knownSnippets: snippetsOf(context.record, baseline.running),
    isMoot: () => isProfileMade(state, context.record, tools),
  };
  const { verdict, details } = await runSwitch(order, context.signal, tools);
  const left = await leaveBootDefault(state, verdict, context, tools);
  if (left !== null) return { event: left, details };
  const failure = failureOf(verdict);
  if (failure !== null) {
    const message = `switch-to-configuration ${action}: ${failure}`;
    const isUntouched = running !== release.toplevel && !tried && state.restarts === 0;
    const event =
      verdict.kind !== "notBegun"
        ? await failedCommit(state, verdict, message, context, tools)
        : isUntouched
          ? await notCommitted(state, verdict, tools)
          : interrupted(NOT_BEGUN_CODES[verdict.why], message);
    return { event, details };
  }
  const problem = judgeBootDefault(release, await observe(tools));
  if (problem !== null) return { event: rejected("HEALTH_FAILED", problem), details };
  if (rebootNeeded) await armBootDeadline(release, tools);
  const made = await handMade(state, context.record, tools);
  const byHand = made.running === null ? null : `${describeHandMade(made)}; that is left running`;
  if (byHand !== null) tools.log.warn(byHand, { code: "CHANGED_BY_HAND" });
  const untried = arming === null ? null : `not tried by one boot: ${arming.cannot}`;
  if (untried !== null) tools.log.warn(untried);
  const messages = [untried, byHand].filter((message) => message !== null);
  return {
    event: {
      ...{ type: "BootDefaultSet", bootId: await services.bootId() },
      ...(tried && isAway && byHand === null && { rebootNeeded: true }),
      ...(messages.length > 0 && { message: messages.join("; ") }),
    },
    details,
  };
};

/**
 * What a commit leads to that failed on its way. Most such faults are of the place that the boot
 * loader writes to; the proven system's own installer shows whether this one is.
 */
async function failedCommit(
  state: StateOf<"Committing">,
  verdict: SwitchVerdict,
  message: string,
  { record, signal }: StepContext,
  tools: CommitTools,
): Promise<Happening> {
  if (verdict.kind === "interrupted") return interrupted("ACTIVATION_INTERRUPTED", message);
  const why = verdict.kind === "halfDone" ? verdict.why : "fault";
  const { profile: proven } = state.baseline;
  if (why !== "fault" || proven === null || proven === state.release.toplevel) {
    return halfDone(why, message);
  }
  await restoreProfile(state.baseline, tools.store);
  // The installer copies the kernels of all generations; there may be no room for this one's.
  await forgetUnproven(state, tools);
  const order = provenBoot(proven, state, record, tools);
  const alike = failureOf((await runSwitch(order, signal, tools)).verdict);
  if (alike === null) return halfDone(why, message);
  return interrupted("BOOT_LOADER_FAILED", `${message}; so did ${proven} boot: ${alike}`);
}

/** What a commit leads to that did not begin, of a system that does not run: all is as before. */
async function notCommitted(
  state: StateOf<"Committing">,
  { why, message }: Extract<SwitchVerdict, { kind: "notBegun" }>,
  tools: Pick<AgentTools, "store" | "log"> & RetryTools,
): Promise<Happening> {
  await restoreProfile(state.baseline, tools.store);
  await forgetUnproven(state, tools);
  const reason = { code: NOT_BEGUN_CODES[why], message: `not begun: ${message}` };
  return attemptFailed(state, reason, tools);
}

/** What ending an update takes. */
export type EndTools = LeftoverTools & LateHookTools & RetryTools & Pick<AgentTools, "store">;

/** Holds what the host is now and removes what it no longer needs. */
export const endUpdate: Step<"Committed", EndTools> = async (state, context, tools) => {
  const { release, baseline } = state;
  const { pendingReboot } = context.record;
  const { roots, log, store, settings } = tools;
  await roots.hold(ROOT.current, release.toplevel);
  if (baseline.profile === null) await roots.release(ROOT.previous);
  else await roots.hold(ROOT.previous, baseline.profile);
  await removeLeftovers(context.record, tools);
  const { keep } = settings.generations;
  if (keep !== undefined && setsProfile(release.mode)) await store.pruneGenerations(keep);
  const reboot = pendingReboot === null ? "" : "; a reboot is needed";
  log.info(`release ${release.sequence} is active: ${release.toplevel}${reboot}`);
  const result = pendingReboot === null ? "committed" : "reboot-needed";
  const facts = {
    release,
    toplevel: release.toplevel,
    previous: baseline.profile,
    result,
  } as const;
  await runLateHook("postCommit", facts, context, tools);
  return { event: { type: "LeftoversRemoved", retryAt: retryAt(1, "INTERNAL", tools) } };
};

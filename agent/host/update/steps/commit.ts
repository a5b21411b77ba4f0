import { setsProfile } from "../../../core/update/activation.ts";
import { judgeBootDefault } from "../../../core/update/health.ts";
import { snippetsOf } from "../../../core/update/record.ts";
import type { Reason } from "../../../core/update/states.ts";
import { failureOf, type SwitchVerdict } from "../../../core/update/switch-verdict.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { observe } from "../../observe.ts";
import { armBootDeadline, type DeadlineTools } from "../arm-deadline.ts";
import { interrupted, rejected } from "../happening.ts";
import { runLateHook, type LateHookTools } from "../hooks.ts";
import { removeLeftovers, type LeftoverTools } from "../leftovers.ts";
import { retryAt, type RetryTools } from "../retry.ts";
import { ROOT } from "../roots.ts";
import type { Step } from "../step.ts";
import { runSwitch, type SwitchTools } from "../switch-run.ts";
import { armTrial, type TrialTools } from "./arm-trial.ts";

/** What committing takes. */
export type CommitTools = SwitchTools & DeadlineTools & TrialTools & Pick<AgentTools, "store">;

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
    await store.forgetNewer(pendingReboot.release.toplevel);
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
  const proven = release.mode === "switch" && !rebootNeeded && !tried;
  const action = proven && running !== null && running !== release.toplevel ? "switch" : "boot";
  const order = {
    ...({ toplevel: release.toplevel, action } as const),
    ranBefore: await store.runningToplevel(),
    knownSnippets: snippetsOf(context.record, baseline.running),
  };
  const { verdict, details } = await runSwitch(order, context.signal, tools);
  const failure = failureOf(verdict);
  if (failure !== null) {
    const message = `switch-to-configuration ${action}: ${failure}`;
    const code = interruptionOf(verdict);
    const event =
      code === null
        ? rejected("ACTIVATION_FAILED", message)
        : interrupted(state, { code, message }, settings.activation.attempts);
    return { event, details };
  }
  const problem = judgeBootDefault(release, await observe(tools));
  if (problem !== null) return { event: rejected("HEALTH_FAILED", problem), details };
  if (rebootNeeded) await armBootDeadline(release, tools);
  const isAway = tried && running !== null && running !== release.toplevel;
  if (arming !== null) tools.log.warn(`not tried by one boot: ${arming.cannot}`);
  return {
    event: {
      ...{ type: "BootDefaultSet", bootId: await services.bootId() },
      ...(isAway && { rebootNeeded: true }),
      ...(arming !== null && { message: `not tried by one boot: ${arming.cannot}` }),
    },
    details,
  };
};

/** By which code a commit is tried again; null if the system is to blame for its failure. */
function interruptionOf(verdict: SwitchVerdict): Reason["code"] | null {
  switch (verdict.kind) {
    case "notBegun":
      return verdict.why === "locked" ? "SWITCH_LOCKED" : "SWITCH_REFUSED";
    case "halfDone":
      return verdict.why === "unavailable" ? "ACTIVATION_INTERRUPTED" : null;
    case "interrupted":
      return "ACTIVATION_INTERRUPTED";
    default:
      return null;
  }
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

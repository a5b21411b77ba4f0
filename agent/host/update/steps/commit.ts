import { failureText, setsProfile } from "../../../core/update/activation.ts";
import { judgeBootDefault } from "../../../core/update/health.ts";
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

/** What committing takes. */
export type CommitTools = SwitchTools & DeadlineTools & Pick<AgentTools, "store">;

/** Makes the system the boot default. */
export const commit: Step<"Committing", CommitTools> = async (state, { signal }, tools) => {
  const { release, rebootNeeded } = state;
  const { store, services, settings } = tools;
  if ((await store.profileToplevel()) !== release.toplevel) {
    await store.setProfile(release.toplevel);
  }
  // A power cut may have brought the old system back after the new one was proven.
  const { running } = await observe(store);
  const proven = release.mode === "switch" && !rebootNeeded;
  const mode = proven && running !== null && running !== release.toplevel ? "switch" : "boot";
  const { verdict, details } = await runSwitch(release.toplevel, mode, signal, tools);
  const failure = failureText(verdict);
  if (failure !== null && verdict.kind !== "unitsFailed") {
    const message = `switch-to-configuration ${mode}: ${failure}`;
    const { attempts } = settings.activation;
    switch (verdict.kind) {
      case "locked":
        return { event: interrupted(state, { code: "SWITCH_LOCKED", message }, attempts), details };
      case "interrupted": {
        const reason = { code: "ACTIVATION_INTERRUPTED", message } as const;
        return { event: interrupted(state, reason, attempts), details };
      }
      default:
        return { event: rejected("ACTIVATION_FAILED", message), details };
    }
  }
  const problem = judgeBootDefault(release, await observe(store));
  if (problem !== null) return { event: rejected("HEALTH_FAILED", problem), details };
  if (rebootNeeded) await armBootDeadline(release, tools);
  return { event: { type: "BootDefaultSet", bootId: await services.bootId() }, details };
};

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
  await removeLeftovers(pendingReboot, tools);
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

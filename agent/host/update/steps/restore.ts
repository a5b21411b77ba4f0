import { failureText, planRollback } from "../../../core/update/activation.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { observe } from "../../observe.ts";
import { runLateHook, type LateHookTools } from "../hooks.ts";
import type { Details } from "../journal.ts";
import { removeLeftovers, type LeftoverTools } from "../leftovers.ts";
import { retryAt, type RetryTools } from "../retry.ts";
import type { Step } from "../step.ts";
import { runSwitch, type SwitchTools } from "../switch-run.ts";

/** What going back takes. */
export type RollBackTools = SwitchTools & Pick<AgentTools, "store" | "services" | "boot">;

/** Restores the system that was recorded before the activation. */
export const rollBack: Step<"RollingBack", RollBackTools> = async (state, { signal }, tools) => {
  const { release, baseline } = state;
  const { store, log, services, boot } = tools;
  const host = await observe(store);
  // A system that was booted runs now, though its mode alone would not have made it so.
  const booted = release.mode === "boot" && host.running === release.toplevel;
  const plan = planRollback(booted ? "switch" : release.mode, baseline);
  if (plan.restoreProfile && host.profile !== baseline.profile) {
    await store.restoreProfile(baseline.generation);
  }
  // A host that booted the new kernel leaves it only by another boot.
  let needsBoot = booted && baseline.profile !== null && (await boot.needsReboot(baseline.profile));
  let details: Details = {};
  for (const { toplevel, mode } of plan.runs) {
    log.warn(`going back: ${toplevel}, ${mode}`);
    const run = await runSwitch(toplevel, mode, signal, tools);
    ({ details } = run);
    const failure = failureText(run.verdict);
    // Units that fail in the old system did not fail because of the way back.
    if (failure !== null && run.verdict.kind !== "unitsFailed") {
      const message = `${toplevel} ${mode}: ${failure}`;
      return { event: { type: "RollbackFailed", message }, details };
    }
    if (run.verdict.kind === "rebootNeeded") needsBoot = true;
  }
  const rebootFrom = needsBoot ? { rebootFrom: await services.bootId() } : {};
  return { event: { type: "RollbackSucceeded", ...rebootFrom }, details };
};

/** What ending a way back takes. */
export type EndRollBackTools = LeftoverTools & LateHookTools & RetryTools;

/** Removes what the release that was left needed. */
export const endRollBack: Step<"RolledBack", EndRollBackTools> = async (state, context, tools) => {
  const { release, attempts, reason, baseline } = state;
  await removeLeftovers(context.record.pendingReboot, tools);
  tools.log.warn(`release ${release.sequence} was rolled back`);
  await runLateHook(
    "postRollback",
    {
      ...{ release, toplevel: baseline.profile, previous: release.toplevel },
      ...{ result: "rolled-back", code: reason.code },
    },
    context,
    tools,
  );
  const retry = retryAt(attempts + 1, reason.code, tools);
  return { event: { type: "LeftoversRemoved", retryAt: retry } };
};

/** What going back by hand takes. */
export type RevertTools = SwitchTools & LeftoverTools & LateHookTools & Pick<AgentTools, "store">;

/** Switches to the generation that a person chose. */
export const revert: Step<"Reverting", RevertTools> = async (state, context, tools) => {
  const { from } = state;
  const { toplevel, generation } = state.target;
  const { store, log } = tools;
  if ((await store.profileGeneration()) !== generation) await store.restoreProfile(generation);
  log.info(`activating ${toplevel}, generation ${generation}`);
  const { verdict, details } = await runSwitch(toplevel, "switch", context.signal, tools);
  const failure = failureText(verdict);
  if (failure !== null && verdict.kind !== "unitsFailed") {
    return { event: { type: "RevertFailed", message: `${toplevel}: ${failure}` }, details };
  }
  if (verdict.kind === "rebootNeeded") log.warn(`${toplevel} takes effect with a reboot`);
  await removeLeftovers(context.record.pendingReboot, tools);
  const facts = { release: null, toplevel, previous: from, result: "reverted" } as const;
  await runLateHook("postRollback", facts, context, tools);
  return { event: { type: "RevertSucceeded" }, details };
};

import { failureOf } from "../../../core/update/switch-verdict.ts";
import type { StateOf } from "../../../core/update/states.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { observe } from "../../observe.ts";
import { armBootDeadline, type DeadlineTools } from "../arm-deadline.ts";
import { wasCutOff } from "../cut-off.ts";
import type { HandMadeTools } from "../hand-made.ts";
import { interrupted } from "../happening.ts";
import { runLateHook, type LateHookTools } from "../hooks.ts";
import { leaveBootDefault, provenBoot } from "../leave-boot-default.ts";
import { removeLeftovers, type LeftoverTools } from "../leftovers.ts";
import { retryAt, type RetryTools } from "../retry.ts";
import { ROOT } from "../roots.ts";
import type { Step, StepContext, StepResult } from "../step.ts";
import { runSwitch, type SwitchTools } from "../switch-run.ts";

/** What arming a trial takes. */
export type TrialTools = SwitchTools &
  DeadlineTools &
  HandMadeTools &
  Pick<AgentTools, "bootLoader">;

/** What arming a trial leads to, or why this host cannot try a system by one boot. */
export type Arming = StepResult | { readonly cannot: string };

/**
 * Has the next boot try the system, once. The profile gets a generation for it and goes back to
 * the recorded one, whose own installer then writes the entries of both with itself as the
 * default: at no moment is the boot default a system that was not proven.
 */
export async function armTrial(
  state: StateOf<"Committing">,
  context: StepContext,
  tools: TrialTools,
): Promise<Arming> {
  const { release, baseline } = state;
  const { store, services, bootLoader, roots, settings } = tools;
  const { profile: proven, generation } = baseline;
  if (proven === null || generation === null) return { cannot: "no system was the boot default" };
  if (proven === release.toplevel) return { cannot: "the system is the boot default already" };
  const { cannotTry } = await bootLoader.look();
  if (cannotTry !== null) return { cannot: cannotTry };
  const host = await observe(tools);
  // A power cut may start the trial before it was recorded.
  const isTried = host.running === release.toplevel && host.profile === proven;
  if (isTried && (await wasCutOff(state, tools))) {
    return { event: { type: "TrialArmed", bootId: state.bootId } };
  }
  await roots.hold(ROOT.trial, release.toplevel);
  await store.setProfile(release.toplevel);
  await store.restoreProfile(generation);
  const { keep } = settings.generations;
  if (keep !== undefined) await store.pruneGenerations(keep, generation);
  await armBootDeadline(release, tools);
  const order = provenBoot(proven, state, context.record, tools);
  const { verdict, details } = await runSwitch(order, context.signal, tools);
  const left = await leaveBootDefault(state, verdict, context, tools);
  if (left !== null) return { event: left, details };
  const failure = failureOf(verdict);
  if (failure !== null) {
    const message = `${proven} boot: ${failure}`;
    return { event: interrupted("BOOT_LOADER_FAILED", message), details };
  }
  const cannot = await bootLoader.tryOnce({ toplevel: release.toplevel, proven });
  if (cannot !== null) return { cannot };
  return { event: { type: "TrialArmed", bootId: await services.bootId() }, details };
}

/** What ending the preparations of a trial takes. */
export type EndArmingTools = LeftoverTools & LateHookTools & RetryTools;

/** Removes what is of no use before the boot that tries the system. */
export const endArming: Step<"Armed", EndArmingTools> = async (state, context, tools) => {
  const { release, baseline } = state;
  await removeLeftovers(context.record, tools);
  tools.log.info(`the next boot tries release ${release.sequence}: ${release.toplevel}`);
  await runLateHook(
    "postCommit",
    {
      ...{ release, toplevel: release.toplevel, previous: baseline.profile },
      result: "reboot-needed",
    },
    context,
    tools,
  );
  return { event: { type: "LeftoversRemoved", retryAt: retryAt(1, "INTERNAL", tools) } };
};

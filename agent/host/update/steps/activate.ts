import { provingMode, setsProfile, type Verdict } from "../../../core/update/activation.ts";
import type { StateOf } from "../../../core/update/states.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { wasCutOff } from "../cut-off.ts";
import { interrupted, rejected, type Happening } from "../happening.ts";
import { attemptFailed, type RetryTools } from "../retry.ts";
import type { Step, StepContext } from "../step.ts";
import { runSwitch, type SwitchRun, type SwitchTools } from "../switch-run.ts";
import { beginBootCommit, type ProofTools } from "../take-over.ts";

/** What activating takes. */
export type ActivateTools = SwitchTools & ProofTools & RetryTools & Pick<AgentTools, "services">;

/** Switches to the system without making it the boot default. */
export const activate: Step<"Activating", ActivateTools> = async (state, context, tools) => {
  const { attempts } = tools.settings.activation;
  if (await wasCutOff(state, tools)) {
    const message = "the host went down meanwhile";
    return { event: interrupted(state, { code: "ACTIVATION_INTERRUPTED", message }, attempts) };
  }
  const mode = provingMode(state.release.mode) ?? "test";
  const run = await runSwitch(state.release.toplevel, mode, context.signal, tools);
  return { event: await judge({ state, mode, run }, context, tools), details: run.details };
};

/** What a run of switch-to-configuration leads to. */
async function judge(
  { state, mode, run }: { state: StateOf<"Activating">; mode: string; run: SwitchRun },
  { signal }: StepContext,
  tools: ActivateTools,
): Promise<Happening> {
  const { release, restarts } = state;
  const { attempts } = tools.settings.activation;
  const verdict: Verdict = run.verdict;
  switch (verdict.kind) {
    case "activated":
      return { type: "ActivationSucceeded" };
    case "unitsFailed":
      // The health gate tells new failures from old ones. If units cannot be seen, nothing
      // else could.
      return (await tools.services.unitTroubles()) === null
        ? rejected("ACTIVATION_FAILED", `switch-to-configuration ${mode}: ${verdict.message}`)
        : { type: "ActivationSucceeded", message: verdict.message };
    case "rebootNeeded":
      return setsProfile(release.mode)
        ? beginBootCommit(release, signal, tools)
        : rejected("ACTIVATION_FAILED", `${mode}: it takes effect only with a reboot`);
    case "locked": {
      const message = `switch-to-configuration ${mode}: another one held the lock all the time`;
      const reason = { code: "SWITCH_LOCKED", message } as const;
      // This run did nothing; what the run of an agent before did is not known.
      return restarts === 0
        ? attemptFailed(state, reason, tools)
        : interrupted(state, reason, attempts);
    }
    case "interrupted": {
      const message = `switch-to-configuration ${mode}: ${verdict.message}`;
      return interrupted(state, { code: "ACTIVATION_INTERRUPTED", message }, attempts);
    }
    case "failed":
      return rejected(
        run.timedOut ? "ACTIVATION_TIMEOUT" : "ACTIVATION_FAILED",
        `switch-to-configuration ${mode}: ${verdict.message}`,
      );
    default:
      return verdict satisfies never;
  }
}

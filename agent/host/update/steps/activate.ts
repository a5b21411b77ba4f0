import { provingMode } from "../../../core/update/activation.ts";
import { snippetsOf } from "../../../core/update/record.ts";
import type { StateOf } from "../../../core/update/states.ts";
import { activeToplevel } from "../../observe.ts";
import { wasCutOff } from "../cut-off.ts";
import { handMade, type HandMadeTools } from "../hand-made.ts";
import { halfDone, interrupted, rejected, type Happening } from "../happening.ts";
import { notBegun, takesBoot } from "../not-begun.ts";
import type { RetryTools } from "../retry.ts";
import type { Step } from "../step.ts";
import { runSwitch, type SwitchRun, type SwitchTools } from "../switch-run.ts";
import type { ProofTools } from "../take-over.ts";

/** What activating takes. */
export type ActivateTools = SwitchTools & ProofTools & RetryTools & HandMadeTools;

/** Switches to the system without making it the boot default. */
export const activate: Step<"Activating", ActivateTools> = async (state, context, tools) => {
  if (await wasCutOff(state, tools)) {
    return { event: interrupted("ACTIVATION_INTERRUPTED", "the host went down meanwhile") };
  }
  const { release, baseline } = state;
  const action = provingMode(release.mode) ?? "test";
  const ranBefore = baseline.running;
  const knownSnippets = snippetsOf(context.record, ranBefore);
  const toplevel = await activeToplevel(release, tools);
  // Whoever held the lock may have switched to another system.
  const isMoot = async (): Promise<boolean> =>
    (await handMade(state, context.record, tools)).running !== null;
  const order = { toplevel, action, ranBefore, knownSnippets, isMoot };
  const run = await runSwitch(order, context.signal, tools);
  const event = await judge(state, { run, action, signal: context.signal }, tools);
  return { event, details: run.details };
};

/** What a run of switch-to-configuration leads to. */
async function judge(
  state: StateOf<"Activating">,
  { run, action, signal }: { run: SwitchRun; action: string; signal: AbortSignal | undefined },
  tools: ActivateTools,
): Promise<Happening> {
  const { verdict, activated } = run;
  const message =
    "message" in verdict ? `switch-to-configuration ${action}: ${verdict.message}` : "";
  switch (verdict.kind) {
    case "activated":
      return { type: "ActivationSucceeded", activated };
    case "activatedWithWarnings":
      return { type: "ActivationSucceeded", message: verdict.message, activated };
    case "unitsFailed":
      // The health gate tells new failures from old ones. If units cannot be seen, nothing
      // else could.
      return (await tools.services.unitTroubles()) === null
        ? rejected("ACTIVATION_FAILED", message)
        : {
            ...{ type: "ActivationSucceeded", message: verdict.message, activated },
            // Old failures, and users' managers, explain the exit code without any job.
            ...((verdict.jobs.length > 0 || !verdict.isNamed) && { failedJobs: verdict.jobs }),
          };
    case "rebootNeeded":
      return takesBoot(state, `${action}: it takes effect only with a reboot`, signal, tools);
    case "notBegun":
      // This run did nothing; what the run of an agent before did is not known.
      return state.restarts === 0
        ? notBegun(state, verdict, signal, tools)
        : interrupted("ACTIVATION_INTERRUPTED", message);
    case "activationFailed":
      return rejected("ACTIVATION_FAILED", message);
    case "halfDone":
      return halfDone(verdict.why, message);
    case "interrupted":
      return interrupted("ACTIVATION_INTERRUPTED", message);
    default:
      return verdict satisfies never;
  }
}

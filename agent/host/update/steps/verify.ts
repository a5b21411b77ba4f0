import { setsProfile } from "../../../core/update/activation.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { wasCutOff } from "../cut-off.ts";
import { interrupted } from "../happening.ts";
import { passHealthGate, type HealthGateTools } from "../health-gate.ts";
import type { Step } from "../step.ts";
import { makeWay, type TakeOverTools } from "../take-over.ts";

/** What verifying takes. */
export type VerifyTools = HealthGateTools & TakeOverTools & Pick<AgentTools, "boot">;

/** Examines the system that runs. */
export const verify: Step<"Verifying", VerifyTools> = async (state, { record, signal }, tools) => {
  const { release, baseline, afterBoot } = state;
  const { attempts } = tools.settings.activation;
  if (!afterBoot && (await wasCutOff(state, tools))) {
    const message = "the host went down meanwhile";
    return { event: interrupted(state, { code: "ACTIVATION_INTERRUPTED", message }, attempts) };
  }
  if (release.mode === "dry-activate") return { event: { type: "HealthConfirmed" } };
  if (!afterBoot) await makeWay(release, signal, tools);
  const subject = { release, baseline, afterBoot, trust: record.trust };
  const problem = await passHealthGate(subject, tools, signal);
  if (problem) {
    // Mirrors may be out of reach for reasons that are not the system's.
    const event =
      problem.code === "HEALTH_MIRROR"
        ? interrupted(state, problem, attempts)
        : ({ type: "ActivationRejected", reason: problem } as const);
    return { event };
  }
  if (afterBoot || !setsProfile(release.mode)) return { event: { type: "HealthConfirmed" } };
  const rebootNeeded = await tools.boot.needsReboot(release.toplevel);
  return { event: { type: "CommitBegun", rebootNeeded } };
};

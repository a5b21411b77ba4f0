import { setsProfile } from "../../../core/update/activation.ts";
import { blameFor } from "../../../core/update/blame.ts";
import { snippetsOf, type AgentRecord } from "../../../core/update/record.ts";
import { snippetText } from "../../../core/update/switch-output.ts";
import type { StateOf } from "../../../core/update/states.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { activeToplevel, observe } from "../../observe.ts";
import { wasCutOff } from "../cut-off.ts";
import { interrupted, rejected, type Happening } from "../happening.ts";
import { passHealthGate, type HealthGateTools, type HealthProblem } from "../health-gate.ts";
import { hasGeneration } from "../pending-boot.ts";
import type { Step } from "../step.ts";
import { makeWay, type TakeOverTools } from "../take-over.ts";

/** What verifying takes. */
export type VerifyTools = HealthGateTools &
  TakeOverTools &
  Pick<AgentTools, "boot" | "systems" | "bootLoader">;

/** Leads back: for good if the system is to blame, else to be tried again. */
async function blame(
  { release, baseline }: StateOf<"Verifying">,
  { reason, problem }: HealthProblem,
  tools: VerifyTools,
): Promise<Happening> {
  const unchanged = new Set<string>();
  const now = await activeToplevel(release, tools);
  for (const unit of problem.kind === "units" ? problem.units : []) {
    if (await isUnchanged(unit, baseline.running, now, tools)) unchanged.add(unit);
  }
  if (blameFor(problem, (unit) => unchanged.has(unit)) === "own") {
    return { type: "ActivationRejected", reason };
  }
  const code = reason.code === "HEALTH_FAILED" ? "HEALTH_UNBLAMED" : reason.code;
  const message =
    code === "HEALTH_UNBLAMED"
      ? `${reason.message}; the release did not change them, so it is tried again`
      : reason.message;
  return interrupted(code, message);
}

/** Whether a unit is defined alike in both systems. */
async function isUnchanged(
  unit: string,
  before: string | null,
  now: string,
  { systems }: Pick<AgentTools, "systems">,
): Promise<boolean> {
  if (before === null) return false;
  const definition = await systems.unitDefinition(before, unit);
  return definition !== null && definition === (await systems.unitDefinition(now, unit));
}

/** What a boot leads to that did not leave the host with the system; null if it did. */
async function judgeBoot(
  state: StateOf<"Verifying">,
  tools: Pick<AgentTools, "store" | "systems" | "services" | "bootLoader">,
): Promise<Happening | null> {
  const { toplevel } = state.release;
  const { running } = await observe(tools, toplevel);
  if (running === null || running === toplevel) return null;
  if (await wasCutOff(state, tools)) {
    const message = `the host went down while ${toplevel} was judged`;
    return interrupted("ACTIVATION_INTERRUPTED", message);
  }
  if (!state.trial) {
    // Nothing shows that the boot default was started at all.
    const message = `expected ${toplevel}, the boot default, to be booted, but somebody or the boot loader chose ${running}`;
    return interrupted("BOOT_NOT_TRIED", message);
  }
  if (await tools.bootLoader.isTrialPending()) {
    const message = `expected the boot loader to start ${toplevel} once, but it started ${running}`;
    return interrupted("BOOT_NOT_TRIED", message);
  }
  if (!(await hasGeneration(toplevel, tools))) {
    const message = `expected ${toplevel} to be started once, but somebody deleted its generation`;
    return interrupted("BOOT_NOT_TRIED", message);
  }
  const message = `${toplevel} was started once, and the host came back with ${running}`;
  return rejected("BOOT_TRIAL_FAILED", message);
}

/**
 * What a boot leads to whose activation script failed; null if it did not, if only what fails
 * in the system before as well did, or if it cannot be seen. A service manager that has its
 * units running all the same says nothing of it.
 */
async function judgeBootActivation(
  { release, baseline }: StateOf<"Verifying">,
  record: AgentRecord,
  { services }: Pick<AgentTools, "services">,
): Promise<Happening | null> {
  const known = [...snippetsOf(record, baseline.running), ...snippetsOf(record, release.toplevel)];
  const failed = ((await services.failedInBoot()) ?? [])
    .map(snippetText)
    .filter((snippet) => !known.includes(snippet));
  if (failed.length === 0) return null;
  const message = `the activation script failed in the boot: ${failed.join(", ")}`;
  return rejected("ACTIVATION_FAILED", message);
}

/** Examines the system that runs. */
export const verify: Step<"Verifying", VerifyTools> = async (state, { record, signal }, tools) => {
  const { release, baseline, afterBoot } = state;
  if (!afterBoot && (await wasCutOff(state, tools))) {
    return { event: interrupted("ACTIVATION_INTERRUPTED", "the host went down meanwhile") };
  }
  // What failed in the boot of another system says nothing of this one.
  if (afterBoot) {
    const missed = await judgeBoot(state, tools);
    if (missed !== null) return { event: missed };
  }
  if (release.mode === "dry-activate") return { event: { type: "HealthConfirmed" } };
  if (!afterBoot) await makeWay(release, signal, tools);
  const activation = afterBoot ? await judgeBootActivation(state, record, tools) : null;
  if (activation !== null) return { event: activation };
  const { failedJobs = null } = state;
  const subject = { release, baseline, afterBoot, trust: record.trust, failedJobs };
  const found = await passHealthGate(subject, tools, signal);
  if (found) {
    const { lastLines } = found;
    return {
      event: await blame(state, found, tools),
      ...(lastLines && { details: { lastLines: [...lastLines] } }),
    };
  }
  if (state.trial) return { event: { type: "CommitBegun", rebootNeeded: false } };
  if (afterBoot || !setsProfile(release.mode)) return { event: { type: "HealthConfirmed" } };
  const rebootNeeded = await tools.boot.needsReboot(release.toplevel);
  return { event: { type: "CommitBegun", rebootNeeded } };
};

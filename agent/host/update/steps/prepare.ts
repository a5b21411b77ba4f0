import { PullError } from "../../../core/errors.ts";
import type { Release } from "../../../core/formats/manifest.ts";
import { failureText, provingMode } from "../../../core/update/activation.ts";
import { denialOf } from "../../../core/update/record.ts";
import type { AgentTools } from "../../agent-tools.ts";
import { observe } from "../../observe.ts";
import { armDeadline, type DeadlineTools } from "../arm-deadline.ts";
import { rejected } from "../happening.ts";
import { runHook, type HookTools } from "../hooks.ts";
import { attemptFailed, type RetryTools } from "../retry.ts";
import { ROOT } from "../roots.ts";
import type { Step } from "../step.ts";
import { runSwitch, type SwitchTools } from "../switch-run.ts";
import { beginBootCommit, type ProofTools } from "../take-over.ts";

/** What recording the way back takes. */
export type BaselineTools = HookTools & Pick<AgentTools, "boot" | "store" | "services" | "roots">;

/** Records the system to go back to, and holds it: a garbage collection may come at any time. */
export const recordBaseline: Step<"Imported", BaselineTools> = async (state, context, tools) => {
  const { store, services, roots } = tools;
  const { release } = state;
  await requireBootSpace(release, tools);
  // Before anything on the host changes: a hook that fails here costs only the attempt.
  await runHook(
    "preActivate",
    {
      ...{ release, toplevel: release.toplevel, result: "" },
      previous: await store.profileToplevel(),
    },
    context,
    tools,
  );
  const host = await observe(store);
  const { profile } = host;
  // A system that failed here and could not be left is no system to go back to.
  const isFailed = host.running !== null && denialOf(context.record, host.running) !== undefined;
  const running = isFailed && profile !== null ? profile : host.running;
  const generation = await store.profileGeneration();
  const troubles = await services.unitTroubles();
  const failedUnits = [...(troubles?.failed ?? [])];
  const restartedUnits = [...(troubles?.restarts.keys() ?? [])];
  if (profile !== null) await roots.hold(ROOT.previousProfile, profile);
  if (running !== null) await roots.hold(ROOT.previousRunning, running);
  return {
    event: {
      type: "BaselineRecorded",
      baseline: { profile, generation, running, failedUnits, restartedUnits },
      bootId: await services.bootId(),
    },
  };
};

/** Throws DISK_FULL if the boot loader's directory has no room for the release. */
async function requireBootSpace(
  release: Release,
  { boot }: Pick<AgentTools, "boot">,
): Promise<void> {
  const missing = await boot.missingSpace(release.toplevel);
  if (!missing) return;
  throw new PullError(
    "DISK_FULL",
    `${missing.directory}: expected ${missing.needed} bytes free for a kernel and initrd, ` +
      `found ${missing.free}`,
  );
}

/** What the last checks before an activation take. */
export type StageTools = SwitchTools & ProofTools & DeadlineTools & RetryTools;

/** Runs the system's own checks and arms the deadline. */
export const stage: Step<"Staged", StageTools> = async (state, { signal }, tools) => {
  const { release } = state;
  let details = {};
  if (await tools.activator.hasCheck(release.toplevel)) {
    const run = await runSwitch(release.toplevel, "check", signal, tools);
    ({ details } = run);
    const failure = failureText(run.verdict);
    if (failure !== null) {
      const message = `switch-to-configuration check: ${failure}`;
      const event =
        run.verdict.kind === "locked"
          ? attemptFailed(state, { code: "SWITCH_LOCKED", message }, tools)
          : rejected("ACTIVATION_FAILED", message);
      return { event, details };
    }
  }
  if (provingMode(release.mode) === null) {
    return { event: await beginBootCommit(release, signal, tools), details };
  }
  if (release.mode !== "dry-activate") await armDeadline(release, tools);
  return { event: { type: "ActivationBegun" }, details };
};

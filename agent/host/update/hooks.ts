import { PullError, toPullError } from "../../core/errors.ts";
import { hookVariables, type HookFacts, type HookName } from "../../core/update/hook.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { StepContext } from "./step.ts";

/** What running a hook takes. */
export type HookTools = Pick<AgentTools, "settings" | "runHook" | "log">;

/**
 * Runs a hook, if this host has one and the release changes anything. Throws HOOK_FAILED,
 * INTERRUPTED.
 */
export async function runHook(
  name: HookName,
  facts: HookFacts,
  { signal }: Pick<StepContext, "signal">,
  { settings, runHook, log }: HookTools,
): Promise<void> {
  const { [name]: command, timeout: timeoutMs } = settings.hooks;
  if (command === undefined) return;
  // Nothing changes by it, but it may fail.
  if (facts.release?.mode === "dry-activate" && name !== "onFailure") return;
  const variables = hookVariables(name, settings.hostname, facts);
  log.info(`hook ${name}: ${command.join(" ")}`);
  try {
    await runHook({ command, variables, timeoutMs }, signal);
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code !== "HOOK_FAILED") throw error;
    throw new PullError("HOOK_FAILED", `${name}: ${error.message}`, { cause: error });
  }
}

/** What running a late hook takes. */
export type LateHookTools = HookTools & Pick<AgentTools, "history" | "clock">;

/** Runs a hook when all is done: a failure is noted and changes nothing. Throws INTERRUPTED. */
export async function runLateHook(
  name: HookName,
  facts: HookFacts,
  context: StepContext,
  tools: LateHookTools,
): Promise<void> {
  try {
    await runHook(name, facts, context, tools);
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    if (code !== "HOOK_FAILED") throw thrown;
    tools.log.warn(message, { code });
    const { release, toplevel } = facts;
    await tools.history.append({
      at: tools.clock.now().toISOString(),
      ...{ event: "HookFailed", state: context.record.state.name },
      ...(release && { sequence: release.sequence, mode: release.mode }),
      ...(toplevel !== null && { toplevel }),
      ...{ code, message },
    });
  }
}

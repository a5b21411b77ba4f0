import { PullError, toPullError } from "../../core/errors.ts";
import type { HookRunner } from "../../core/ports.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { describeFailure, runProcess } from "./subprocess.ts";

/** Runs a hook as the agent's own user. At its time limit, its whole process group is ended. */
export const systemHookRunner: HookRunner = async ({ command, variables, timeoutMs }, signal) => {
  const [program = "", ...args] = command;
  let failure: string;
  try {
    const result = await runProcess(program, args, {
      env: childEnvironment(variables),
      timeoutMs,
      signal,
      mergeOutput: true,
    });
    if (result.exitCode === 0 && !result.timedOut) return;
    failure = describeFailure(result);
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code === "INTERRUPTED") throw error;
    failure = error.message;
  }
  throw new PullError("HOOK_FAILED", failure);
};

import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import type { Activator, Log, NixStore } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { childEnvironment, storeRoot } from "../nix/nix-environment.ts";
import { SwitchOutput } from "../../core/update/switch-output.ts";
import { runProcess } from "../process/subprocess.ts";
import { isSwitchLocked } from "./switch-lock.ts";

/** Path of the program in a toplevel. */
export const SWITCH_PROGRAM = "bin/switch-to-configuration";

const USAGE_TIMEOUT_MS = 10_000;

/** Whether switch-to-configuration lists the action `check` in its usage text. */
export async function usageKnowsCheck(
  program: string,
  env: Readonly<Record<string, string>> = childEnvironment(),
): Promise<boolean> {
  const usage = await runProcess(program, [], {
    env,
    timeoutMs: USAGE_TIMEOUT_MS,
    mergeOutput: true,
  });
  return usage.exitCode !== 0 && /^\s*check\b|[|<]check[|>]/m.test(usage.stderr);
}

/** With it, switch-to-configuration leaves its pre-switch checks out. */
export const UNCHECKED = { NIXOS_NO_CHECK: "1" };

/**
 * Runs switch-to-configuration as a child of the agent, for sandboxes and hosts without systemd.
 * The agent's own signals do not stop it: half an activation is worse than a late shutdown.
 */
export function childActivator(
  settings: Pick<Settings, "store" | "activation">,
  store: NixStore,
  log: Log,
): Activator {
  const root = storeRoot(settings.store);
  // The switch program of a sandbox finds the system's files below this root.
  const env = childEnvironment(root === null ? {} : { NIXOS_PULL_SANDBOX_ROOT: root });
  const program = (toplevel: string): string => join(store.realPath(toplevel), SWITCH_PROGRAM);
  return {
    async canActivate(toplevel) {
      try {
        await access(program(toplevel), constants.X_OK);
        return true;
      } catch {
        return false;
      }
    },
    hasCheck: (toplevel) => usageKnowsCheck(program(toplevel), env),
    async activate(toplevel, action, _signal, { unchecked = false } = {}) {
      const output = new SwitchOutput();
      const result = await runProcess(program(toplevel), [action], {
        env: unchecked ? { ...env, ...UNCHECKED } : env,
        timeoutMs: settings.activation.timeout,
        mergeOutput: true,
        onErrorLine: (line) => {
          output.take(line);
          log.info(line, { component: "switch-to-configuration" });
        },
      });
      return {
        exitCode: result.exitCode,
        timedOut: result.timedOut,
        lockHeld: await isSwitchLocked(),
        facts: output.facts(),
        lastLines: output.lines(),
      };
    },
  };
}

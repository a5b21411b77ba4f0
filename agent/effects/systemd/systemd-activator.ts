import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { PullError } from "../../core/errors.ts";
import type { ActivationResult, Activator, Log, SwitchAction } from "../../core/ports.ts";
import { NO_FACTS } from "../../core/update/switch-output.ts";
import type { Settings } from "../../core/settings.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { clearUnit, systemdOrThrow, unitProperties } from "./systemctl.ts";
import { SWITCH_PROGRAM, UNCHECKED, usageKnowsCheck } from "./activator.ts";
import { isSwitchLocked } from "./switch-lock.ts";
import { unitOutput } from "./unit-output.ts";

/** The transient unit in which every switch runs. */
export const SWITCH_UNIT = "nixos-pull-switch.service";

const POLL_MS = 250;
/** systemd re-executes itself in some switches and does not answer for a while. */
const SILENCE_MS = 5 * 60_000;
/** What systemd itself needs to end a switch after its time limit. */
const KILL_GRACE_MS = 3 * 60_000;

/**
 * Runs switch-to-configuration in a transient unit of its own, so that it outlives the agent: the
 * switch may stop, restart or remove the agent's unit. systemd keeps the result until it was read
 * (`RemainAfterExit`), so that a later agent finds it.
 */
export function systemdActivator(settings: Pick<Settings, "activation">, log: Log): Activator {
  const program = (toplevel: string): string => join(toplevel, SWITCH_PROGRAM);
  return {
    async canActivate(toplevel) {
      return access(program(toplevel), constants.X_OK).then(
        () => true,
        () => false,
      );
    },
    hasCheck: (toplevel) => usageKnowsCheck(program(toplevel)),
    async activate(toplevel, action, signal, { unchecked = false } = {}) {
      const description = `nixos-pull: ${action} ${toplevel}`;
      const left = await unitProperties(SWITCH_UNIT, "LoadState", "Description");
      const isOurs = left?.get("Description") === description && left.get("LoadState") === "loaded";
      if (isOurs) {
        log.info(`${SWITCH_UNIT} was started before; waiting for its end`);
      } else {
        // Any other unit of this name is a leftover: no two switches may run at once.
        await clearUnit(SWITCH_UNIT);
        const { timeout } = settings.activation;
        await start(description, [program(toplevel), action], { timeout, unchecked });
      }
      const result = await ended(settings.activation.timeout, signal);
      await clearUnit(SWITCH_UNIT);
      return result;
    },
  };
}

async function start(
  description: string,
  command: readonly [program: string, action: SwitchAction],
  { timeout, unchecked }: { timeout: number; unchecked: boolean },
): Promise<void> {
  const variables = { ...childEnvironment(), ...(unchecked && UNCHECKED) };
  await systemdOrThrow(
    "systemd-run",
    `--unit=${SWITCH_UNIT}`,
    `--description=${description}`,
    "--no-block",
    "--no-ask-password",
    "--quiet",
    // Not oneshot, whose start would be a job: programs that wait for the end of the boot would
    // wait for themselves.
    "--service-type=exec",
    "--property=RemainAfterExit=yes",
    `--property=RuntimeMaxSec=${Math.ceil(timeout / 1000)}s`,
    // If a switch leaves a program running, that must survive when the unit is removed.
    "--property=KillMode=mixed",
    // Its output is evidence: the journal must not drop lines because there are many.
    "--property=LogRateLimitIntervalSec=0",
    ...Object.entries(variables).map(([name, value]) => `--setenv=${name}=${value}`),
    "--",
    ...command,
  );
}

/**
 * Waits until the unit has ended; gives what systemd recorded. A signal ends the waiting at once,
 * because the switch itself may be stopping this agent, and then waits for its end.
 */
async function ended(timeoutMs: number, signal?: AbortSignal): Promise<ActivationResult> {
  const limit = performance.now() + timeoutMs + KILL_GRACE_MS;
  let heard = performance.now();
  for (;;) {
    const unit = await unitProperties(
      SWITCH_UNIT,
      "LoadState",
      "ActiveState",
      "SubState",
      "Result",
      "ExecMainCode",
      "ExecMainStatus",
      "InvocationID",
      "Job",
    );
    if (unit) heard = performance.now();
    if (unit && isThrough(unit)) return resultOf(unit);
    if (performance.now() - heard > SILENCE_MS || performance.now() > limit) {
      throw new PullError(
        "TOOL_TIMEOUT",
        `${SWITCH_UNIT}: expected that systemd reports its end, found no answer`,
      );
    }
    await sleep(POLL_MS, undefined, signal ? { signal } : {});
  }
}

/** Whether a unit has ended. One whose start still waits as a job is inactive, too. */
function isThrough(unit: ReadonlyMap<string, string>): boolean {
  const active = unit.get("ActiveState");
  const isQueued = Number(unit.get("Job") ?? 0) > 0;
  return (
    active === "failed" || (active === "inactive" && !isQueued) || unit.get("SubState") === "exited"
  );
}

/** `si_code` of a process that ended by itself (waitid(2)). */
const CLD_EXITED = "1";

async function resultOf(unit: ReadonlyMap<string, string>): Promise<ActivationResult> {
  const output = await unitOutput(unit.get("InvocationID") ?? "");
  const exited = unit.get("LoadState") === "loaded" && unit.get("ExecMainCode") === CLD_EXITED;
  return {
    exitCode: exited ? Number(unit.get("ExecMainStatus")) : null,
    timedOut: unit.get("Result") === "timeout",
    lockHeld: await isSwitchLocked(),
    facts: output?.facts() ?? NO_FACTS,
    lastLines: output?.lines() ?? [],
  };
}

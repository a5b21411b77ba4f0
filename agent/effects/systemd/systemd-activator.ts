import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { PullError } from "../../core/errors.ts";
import type { ActivationResult, Activator, Log } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { clearUnit, systemd, systemdOrThrow, unitProperties } from "./systemctl.ts";
import { lastLines } from "../process/bounded-output.ts";
import { SWITCH_PROGRAM, usageKnowsCheck } from "./activator.ts";

/** The transient unit in which every switch runs. */
export const SWITCH_UNIT = "nixos-pull-switch.service";

const KEPT_LINES = 20;
const POLL_MS = 250;
/** systemd re-executes itself in some switches and does not answer for a while. */
const SILENCE_MS = 5 * 60_000;
/** What systemd itself needs to end a switch after its time limit. */
const KILL_GRACE_MS = 3 * 60_000;

/**
 * Runs switch-to-configuration in a transient unit of its own, so that it outlives the
 * agent, whose unit the switch may stop, restart or remove. systemd keeps the result
 * until it was read (`RemainAfterExit`), so an agent that comes later finds it.
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
    async activate(toplevel, mode, signal) {
      const description = `nixos-pull: ${mode} ${toplevel}`;
      const left = await unitProperties(SWITCH_UNIT, "LoadState", "Description");
      const isOurs = left?.get("Description") === description && left.get("LoadState") === "loaded";
      if (isOurs) {
        log.info(`${SWITCH_UNIT} was started before; waiting for its end`);
      } else {
        // Whatever else has the name is a leftover: no two switches may run at once.
        await clearUnit(SWITCH_UNIT);
        await start(description, program(toplevel), mode, settings.activation.timeout);
      }
      const result = await ended(settings.activation.timeout, signal);
      await clearUnit(SWITCH_UNIT);
      return result;
    },
  };
}

async function start(
  description: string,
  program: string,
  mode: string,
  timeoutMs: number,
): Promise<void> {
  const environment = Object.entries(childEnvironment()).map(
    ([name, value]) => `--setenv=${name}=${value}`,
  );
  await systemdOrThrow(
    "systemd-run",
    `--unit=${SWITCH_UNIT}`,
    `--description=${description}`,
    "--no-block",
    "--no-ask-password",
    "--quiet",
    "--property=Type=oneshot",
    "--property=RemainAfterExit=yes",
    `--property=TimeoutStartSec=${Math.ceil(timeoutMs / 1000)}s`,
    // A switch that leaves something running must not lose it when its unit is cleared.
    "--property=KillMode=mixed",
    ...environment,
    "--",
    program,
    mode,
  );
}

/**
 * Waits until the unit is through; gives what systemd recorded. The switch may be what
 * stops this agent and waits for its end, so that a signal ends the waiting at once.
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
    );
    if (unit) heard = performance.now();
    const active = unit?.get("ActiveState");
    const through =
      active === "failed" || active === "inactive" || unit?.get("SubState") === "exited";
    if (unit && through) return resultOf(unit);
    if (performance.now() - heard > SILENCE_MS || performance.now() > limit) {
      throw new PullError("TOOL_TIMEOUT", `${SWITCH_UNIT}: systemd does not say how it ended`);
    }
    await sleep(POLL_MS, undefined, signal ? { signal } : {});
  }
}

/** `si_code` of a process that ended by itself (waitid(2)). */
const CLD_EXITED = "1";

async function resultOf(unit: ReadonlyMap<string, string>): Promise<ActivationResult> {
  const invocation = unit.get("InvocationID") ?? "";
  const journal = await systemd(
    "journalctl",
    "--quiet",
    "--no-pager",
    "--output=cat",
    `--lines=${KEPT_LINES}`,
    `_SYSTEMD_INVOCATION_ID=${invocation}`,
  );
  const exited = unit.get("LoadState") === "loaded" && unit.get("ExecMainCode") === CLD_EXITED;
  return {
    exitCode: exited ? Number(unit.get("ExecMainStatus")) : null,
    timedOut: unit.get("Result") === "timeout",
    lastLines: lastLines(journal.stdout, KEPT_LINES),
  };
}

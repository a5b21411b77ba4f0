import { readFile } from "node:fs/promises";
import { PullError } from "../../core/errors.ts";
import type { ServiceManager } from "../../core/ports.ts";
import type { UnitState } from "../../core/update/unit-states.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { clearUnit, systemd, systemdOrThrow } from "./systemctl.ts";
import { failedInBoot } from "./boot-journal.ts";
import { loggedInUsers, shutdownInhibitors, warnUsers } from "./logins.ts";
import { SWITCH_UNIT } from "./systemd-activator.ts";

/** The agent's own unit, as the NixOS module names it. */
export const AGENT_UNIT = "nixos-pull.service";
const DEADLINE = "nixos-pull-deadline";

/** Identity of the boot (random(4), "boot_id"). */
async function readBootId(): Promise<string> {
  return (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
}

/** The agent judges its own transient units by their results. */
function isNotOurs(unit: string): boolean {
  return unit !== SWITCH_UNIT && !unit.startsWith(`${DEADLINE}.`);
}

/** One unit a line, its name first. */
const PLAIN = ["--plain", "--no-legend", "--no-pager", "--full"] as const;

/** So many names fit into one command line with room to spare. */
const UNITS_AT_ONCE = 200;

function namesIn(listed: string): string[] {
  return listed.split("\n").flatMap((line) => /^\S+/.exec(line)?.[0] ?? []);
}

async function statesOf(units: readonly string[]): Promise<UnitState[]> {
  const { stdout } = await systemdOrThrow(
    "systemctl",
    "show",
    "--property=Id,LoadState,ActiveState,Type,RemainAfterExit,Result,ConditionResult,ConditionTimestampMonotonic,BusName,TriggeredBy",
    "--",
    ...units,
  );
  // One block for each name, in their order; an alias has the Id of the unit behind it.
  return stdout.split("\n\n").flatMap((block, at) => {
    const unit = units[at];
    if (unit === undefined) return [];
    const value = (name: string): string =>
      new RegExp(`^${name}=(.*)$`, "m").exec(block)?.[1]?.trim() ?? "";
    return [
      {
        unit,
        load: value("LoadState"),
        active: value("ActiveState"),
        type: value("Type"),
        remains: value("RemainAfterExit") === "yes",
        result: value("Result") || "success",
        // Also "no" if systemd has not looked at the conditions, as of a unit that it just loaded.
        conditionMet:
          value("ConditionResult") !== "no" || value("ConditionTimestampMonotonic") === "0",
        onDemand: value("BusName") !== "" || value("TriggeredBy") !== "",
      },
    ];
  });
}

/** A host whose units systemd manages. */
export const systemdManager: ServiceManager = {
  bootId: readBootId,

  async unitTroubles() {
    const [listed, shown] = await Promise.all([
      // A service that systemd restarts again and again never fails (systemd.service(5), Restart=).
      systemdOrThrow(
        "systemctl",
        "list-units",
        "--state=failed,auto-restart,auto-restart-queued",
        ...PLAIN,
      ),
      systemdOrThrow("systemctl", "show", "--property=Id,NRestarts", "*.service"),
    ]);
    const failed = namesIn(listed.stdout);
    const restarts = shown.stdout.split("\n\n").flatMap((block) => {
      const unit = /^Id=(.+)$/m.exec(block)?.[1];
      const count = Number(/^NRestarts=(\d+)$/m.exec(block)?.[1] ?? 0);
      // The agent ends by itself to make way for its successor.
      return unit !== undefined && count > 0 && unit !== AGENT_UNIT ? [[unit, count] as const] : [];
    });
    return { failed: failed.filter(isNotOurs).sort(), restarts: new Map(restarts) };
  },

  async activeUnits() {
    const listed = await systemdOrThrow(
      ...(["systemctl", "list-units", "--state=active", ...PLAIN] as const),
    );
    return namesIn(listed.stdout).filter(isNotOurs).sort();
  },

  async unitStates(units) {
    const states: UnitState[] = [];
    for (let at = 0; at < units.length; at += UNITS_AT_ONCE) {
      states.push(...(await statesOf(units.slice(at, at + UNITS_AT_ONCE))));
    }
    return states;
  },

  async startUnits(units) {
    for (let at = 0; at < units.length; at += UNITS_AT_ONCE) {
      await systemd("systemctl", "start", "--", ...units.slice(at, at + UNITS_AT_ONCE));
    }
  },

  async armDeadline(seconds, command) {
    await clearUnit(`${DEADLINE}.timer`);
    await clearUnit(`${DEADLINE}.service`);
    const environment = Object.entries(childEnvironment()).map(
      ([name, value]) => `--setenv=${name}=${value}`,
    );
    await systemdOrThrow(
      "systemd-run",
      `--unit=${DEADLINE}`,
      "--description=nixos-pull: roll back unless the release is committed",
      `--on-active=${seconds}s`,
      "--timer-property=AccuracySec=1s",
      "--no-ask-password",
      "--quiet",
      // The way back has to succeed: if it fails, systemd tries again until it does.
      "--property=Restart=on-failure",
      "--property=RestartSec=30s",
      "--property=StartLimitIntervalSec=0",
      ...environment,
      "--",
      ...command,
    );
  },

  async disarmDeadline() {
    await systemd("systemctl", "stop", `${DEADLINE}.timer`);
    await systemd("systemctl", "reset-failed", `${DEADLINE}.timer`, `${DEADLINE}.service`);
  },

  async stopAgent() {
    await systemd("systemctl", "kill", "--signal=SIGKILL", AGENT_UNIT);
    await systemd("systemctl", "stop", AGENT_UNIT);
    await clearUnit(SWITCH_UNIT);
  },

  async startAgent() {
    await systemd("systemctl", "reset-failed", AGENT_UNIT);
    await systemd("systemctl", "start", "--no-block", AGENT_UNIT);
  },

  async restartAgent() {
    await systemd("systemctl", "try-restart", "--no-block", AGENT_UNIT);
  },

  canReboot: true,
  failedInBoot,
  rebootBlockers: async ({ users }) => [
    ...(await shutdownInhibitors()),
    ...(users ? await loggedInUsers() : []),
  ],
  warnUsers,
  async reboot({ force }) {
    await systemdOrThrow("systemctl", "reboot", "--no-block", ...(force ? ["-i"] : []));
  },
};

/** A sandbox shares the boots of its machine, but has no units of its own. */
export const sandboxManager: ServiceManager = {
  bootId: readBootId,
  unitTroubles: () => Promise.resolve(null),
  activeUnits: () => Promise.resolve(null),
  unitStates: () => Promise.resolve([]),
  startUnits: () => Promise.resolve(),
  armDeadline: () => Promise.resolve(),
  disarmDeadline: () => Promise.resolve(),
  stopAgent: () => Promise.resolve(),
  startAgent: () => Promise.resolve(),
  restartAgent: () => Promise.resolve(),
  canReboot: false,
  failedInBoot: () => Promise.resolve(null),
  rebootBlockers: () => Promise.resolve([]),
  warnUsers: () => Promise.resolve(),
  reboot: () =>
    Promise.reject(new PullError("PERMISSION_DENIED", "a sandbox cannot reboot its machine")),
};

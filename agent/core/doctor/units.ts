import { about, type CheckId, type CheckResult } from "./result.ts";

/** What systemd says about a unit (org.freedesktop.systemd1(5)). */
export interface UnitFacts {
  readonly unit: string;
  /** `loaded`, `not-found`, `masked`, … */
  readonly load: string;
  /** `active`, `inactive`, `failed`, `activating`, … */
  readonly active: string;
  readonly sub: string;
  /** `enabled`, `disabled`, `masked`, …; empty for a unit without a file. */
  readonly file: string;
  readonly result: string;
  /** For how long it may give no sign of life, as systemd writes it; null if it is not watched. */
  readonly watchdog: string | null;
}

/** The agent's units, as the NixOS module names them. */
export const AGENT_UNITS = [
  "nixos-pull.service",
  "nixos-pull-boot.timer",
  "nixos-pull-boot.service",
  "nixos-pull-boot-complete.service",
  "nixos-pull-deadline.timer",
  "nixos-pull-deadline.service",
  "nixos-pull-switch.service",
] as const;

/** Units that start with others: with a target, as NixOS links them. */
const OFF = new Set(["disabled", "masked", "masked-runtime", "bad"]);

const MODULE = "import the NixOS module and set services.nixos-pull.enable, then switch";

/** What the units of a host show; null if systemd does not manage this host's. */
export function judgeUnits(facts: readonly UnitFacts[] | null): CheckResult[] {
  if (facts === null) {
    const ids: CheckId[] = ["units.agent", "units.boot-deadline", "units.boot-complete"];
    return ids.map((id) => about(id).untried("systemd does not manage this host's units"));
  }
  const units = new Map(facts.map((it) => [it.unit, it]));
  const of = (name: (typeof AGENT_UNITS)[number]): UnitFacts =>
    units.get(name) ?? { ...NOWHERE, unit: name };
  const agent = of("nixos-pull.service");
  return [
    judgeAgent(agent),
    ...(agent.load === "loaded" ? [judgeWatchdog(agent)] : []),
    judgeBootDeadline(of("nixos-pull-boot.timer"), of("nixos-pull-boot.service")),
    judgeBootComplete(of("nixos-pull-boot-complete.service")),
    judgeTransient("units.deadline", [
      of("nixos-pull-deadline.timer"),
      of("nixos-pull-deadline.service"),
    ]),
    judgeTransient("units.switch", [of("nixos-pull-switch.service")]),
  ];
}

const NOWHERE: Omit<UnitFacts, "unit"> = {
  ...{ load: "not-found", active: "inactive", sub: "dead", file: "", result: "success" },
  watchdog: null,
};

function stateOf({ unit, active, sub, file, result }: UnitFacts): string {
  const why = result === "success" ? "" : `, result ${result}`;
  return `${unit} is ${active} (${sub}${why})${file === "" ? "" : `, ${file}`}`;
}

/** Why a unit cannot do its work because of how it is installed; null if it can. */
function notInstalled(facts: UnitFacts): { found: string; advice: string } | null {
  const { unit, load, file } = facts;
  if (load === "masked" || file.startsWith("masked")) {
    return { found: `${unit} is masked`, advice: `systemctl unmask ${unit}, then start it` };
  }
  if (load === "not-found") return { found: `${unit} is not there`, advice: MODULE };
  if (load !== "loaded") {
    return { found: `${unit}: systemd says ${load}`, advice: `systemctl status ${unit}` };
  }
  if (OFF.has(file)) {
    return {
      found: `${unit} is ${file}: it does not start with the host`,
      advice: MODULE,
    };
  }
  return null;
}

function judgeAgent(facts: UnitFacts): CheckResult {
  const it = about("units.agent", facts.unit);
  const why = notInstalled(facts);
  if (why) return it.failed(why.found, why.advice);
  if (facts.active === "active") return it.passed(stateOf(facts));
  return it.failed(
    stateOf(facts),
    "journalctl -u nixos-pull -n 50 says why; then `systemctl start nixos-pull`",
  );
}

function judgeWatchdog({ unit, watchdog }: UnitFacts): CheckResult {
  const it = about("units.watchdog", unit);
  if (watchdog !== null) return it.passed(`after ${watchdog}`);
  return it.failed(
    "none: nobody ends an agent that hangs",
    "set services.nixos-pull.watchdog, which has a time unless it was set to null",
  );
}

function judgeBootDeadline(timer: UnitFacts, service: UnitFacts): CheckResult {
  const it = about("units.boot-deadline", timer.unit);
  const why = notInstalled(timer);
  if (why) return it.failed(why.found, why.advice);
  if (service.active === "failed") {
    return it.failed(stateOf(service), `journalctl -u ${service.unit} says why it did not go back`);
  }
  // After it elapsed it is active and does nothing more.
  if (timer.active === "active") return it.passed(stateOf(timer));
  return it.failed(stateOf(timer), `systemctl start ${timer.unit}`);
}

function judgeBootComplete(facts: UnitFacts): CheckResult {
  const it = about("units.boot-complete", facts.unit);
  const why = notInstalled(facts);
  if (why) return it.failed(why.found, why.advice);
  if (facts.active === "failed") {
    return it.failed(stateOf(facts), `journalctl -u ${facts.unit} says what the agent found`);
  }
  // It only runs if the boot loader counts boots.
  return it.passed(stateOf(facts));
}

/** Units that the agent makes when it needs them. */
function judgeTransient(id: CheckId, units: readonly UnitFacts[]): CheckResult {
  const failed = units.find(({ active }) => active === "failed");
  const it = about(id, units[0]?.unit ?? null);
  if (failed) return it.failed(stateOf(failed), `journalctl -u ${failed.unit} says why`);
  const present = units.find(({ active }) => active !== "inactive");
  return it.passed(present ? stateOf(present) : "none at this moment");
}

/** What systemd says of one unit. */
export interface UnitState {
  readonly unit: string;
  /** `not-found` for one that no system brings any more. */
  readonly load: string;
  readonly active: string;
  readonly type: string;
  /** Whether it counts as active once its program has ended well (`RemainAfterExit=`). */
  readonly remains: boolean;
  /** `success` unless it failed the last time that it ran. */
  readonly result: string;
  /** Whether its conditions were met when it was last started. */
  readonly conditionMet: boolean;
  /** Something starts it when it is wanted: a socket, a timer, a path, a name on the bus. */
  readonly onDemand: boolean;
}

/** States in which a unit does its work, or is about to. */
const AT_WORK = ["active", "activating", "reloading", "refreshing"];

/**
 * Units that ought to be active and are not, sorted: those that a failed job names, and those
 * that were active before. A unit that is gone, a finished oneshot, one whose condition is not
 * met, and one that comes back when it is wanted are as they should be. A oneshot that remains
 * active once it has finished was stopped, or never ran.
 */
export function missingUnits(
  expected: { readonly wereActive: readonly string[]; readonly jobs: readonly string[] },
  states: readonly UnitState[],
): string[] {
  const jobs = new Set(expected.jobs);
  const candidates = new Set([...expected.jobs, ...expected.wereActive]);
  return states
    .filter(({ unit }) => candidates.has(unit))
    .filter((state) => !isAsItShould(state, jobs.has(state.unit)))
    .map(({ unit }) => unit)
    .sort();
}

function isAsItShould(state: UnitState, jobFailed: boolean): boolean {
  const { load, active, type, remains, result, conditionMet, onDemand } = state;
  if (AT_WORK.includes(active)) return true;
  if (load === "not-found" || load === "masked") return true;
  if (result !== "success") return false;
  if (!conditionMet) return true;
  // A job that failed for want of a dependency leaves the unit as if nothing had been asked.
  if (jobFailed) return false;
  return (type === "oneshot" && !remains) || onDemand;
}

/** Kinds of units that can be started again by name after a way back. */
const STARTABLE = /\.(service|socket|timer|path|mount|automount|swap|target)$/;
/** What belongs to sessions, to systemd itself, or to transient runs such as systemd-run's. */
const NOT_A_HOSTS = /^(run-|user@|user-runtime-dir@|session-|systemd-)|^nixos-pull/;

/** Of active units, those whose being active is part of what a host is; sorted. */
export function lastingUnits(active: readonly string[]): string[] {
  return active.filter((unit) => STARTABLE.test(unit) && !NOT_A_HOSTS.test(unit)).sort();
}

/** Units that match none of the globs: `*` is any text, `?` one character. */
export function withoutIgnored(units: readonly string[], globs: readonly string[]): string[] {
  const forms = globs.map(
    (glob) =>
      new RegExp(
        `^${glob
          .replace(/[.+^${}()|[\]\\]/g, "\\$&")
          .replaceAll("*", ".*")
          .replaceAll("?", ".")}$`,
        "s",
      ),
  );
  return units.filter((unit) => !forms.some((form) => form.test(unit)));
}

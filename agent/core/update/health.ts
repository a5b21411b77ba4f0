import { changesRunningSystem, setsProfile } from "./activation.ts";
import type { Release } from "../formats/manifest.ts";
import type { Observation } from "./observation.ts";
import type { Baseline } from "./states.ts";

/**
 * Whether the host runs what was activated: null, or what is wrong in words. A running
 * system that cannot be seen (a sandbox) is taken on trust.
 */
export function judgeRunningSystem(release: Release, host: Observation): string | null {
  if (!changesRunningSystem(release.mode) || host.running === null) return null;
  if (host.running === release.toplevel) {
    if (release.specialisation === host.specialisation) return null;
    const [wanted, found] = [release.specialisation, host.specialisation].map((it) => it ?? "none");
    return `the running specialisation: expected ${wanted}, found ${found}`;
  }
  return `the running system: expected ${release.toplevel}, found ${host.running}`;
}

/** Whether the host booted what it was to boot: null, or what is wrong in words. */
export function judgeBootedSystem(release: Release, host: Observation): string | null {
  if (host.running === null || host.running === release.toplevel) return null;
  return `after the boot: expected ${release.toplevel} to run, found ${host.running}`;
}

/** Whether the boot default is the release, if the mode asks for that: null, or what is wrong. */
export function judgeBootDefault(release: Release, host: Observation): string | null {
  if (!setsProfile(release.mode) || host.profile === release.toplevel) return null;
  return `the system profile: expected ${release.toplevel}, found ${host.profile ?? "nothing"}`;
}

/** Units that failed since the baseline was recorded, sorted. */
export function newlyFailedUnits(
  baseline: Pick<Baseline, "failedUnits">,
  failed: readonly string[],
): string[] {
  const before = new Set(baseline.failedUnits);
  return failed.filter((unit) => !before.has(unit)).sort();
}

/**
 * Notices services that end and are started again and again: at most moments such a one
 * looks alive. Times are milliseconds of any steady clock.
 */
export class RestartWatch {
  readonly #known: ReadonlySet<string>;
  #counts: ReadonlyMap<string, number> | null = null;
  readonly #restartedAt = new Map<string, number>();

  constructor({ failedUnits, restartedUnits }: Pick<Baseline, "failedUnits" | "restartedUnits">) {
    this.#known = new Set([...failedUnits, ...restartedUnits]);
  }

  /** Takes how often each was restarted by now; gives those that were within `withinMs`. */
  look(restarts: ReadonlyMap<string, number>, now: number, withinMs: number): string[] {
    const before = this.#counts;
    this.#counts = restarts;
    for (const [unit, count] of before ? restarts : []) {
      if (count > (before?.get(unit) ?? 0)) this.#restartedAt.set(unit, now);
    }
    return [...this.#restartedAt]
      .flatMap(([unit, at]) => (now - at < withinMs && !this.#known.has(unit) ? [unit] : []))
      .sort();
  }
}

import { PullError, toPullError } from "../../core/errors.ts";
import { entryOf, type Manifest, type Release } from "../../core/formats/manifest.ts";
import type { TrustMemories } from "../../core/release/acceptance.ts";
import {
  RestartWatch,
  judgeBootedSystem,
  judgeRunningSystem,
  newlyFailedUnits,
} from "../../core/update/health.ts";
import type { Problem } from "../../core/update/blame.ts";
import { CheckFailure } from "../../core/update/check-failure.ts";
import { missingUnits, withoutIgnored } from "../../core/update/unit-states.ts";
import type { Baseline, KnownReason } from "../../core/update/states.ts";
import type { AgentTools } from "../agent-tools.ts";
import { observe } from "../observe.ts";
import { poll, type PollTools } from "../poll/poll.ts";

/** What has to be judged. */
export interface HealthSubject {
  readonly release: Release;
  readonly baseline: Baseline;
  /** True if the system was booted, false if it was switched to. */
  readonly afterBoot: boolean;
  readonly trust: TrustMemories;
  /** Units whose jobs failed in the switch; null if none did, empty if nobody names them. */
  readonly failedJobs: readonly string[] | null;
}

/** What is wrong with a system, for people and for the question who is to blame. */
export interface HealthProblem {
  readonly reason: KnownReason;
  readonly problem: Problem;
  /** What the operator's check that failed printed last; absent if none did. */
  readonly lastLines?: readonly string[];
}

/** What judging takes. */
export type HealthGateTools = PollTools &
  Pick<AgentTools, "services" | "store" | "systems" | "probe" | "hostname" | "log">;

/**
 * Judges the system that runs now. It must be the release, without units that failed only
 * since the baseline, it must pass the operator's checks, and it must be able to read a
 * release from a mirror. After the settle time everything is tried until all of it holds at
 * once, or the time is over. Gives null, or what was still wrong. Throws INTERRUPTED.
 */
export async function passHealthGate(
  subject: HealthSubject,
  tools: HealthGateTools,
  signal: AbortSignal | undefined,
): Promise<HealthProblem | null> {
  const { services, timers, log } = tools;
  const { settle, timeout, interval } = tools.settings.health;
  const watch = new RestartWatch(subject.baseline);
  const troubles = await services.unitTroubles();
  if (troubles) {
    watch.look(troubles.restarts, timers.steadyMs(), settle);
    await timers.sleep(settle, signal);
  }
  const limit = timers.steadyMs() + timeout;
  for (;;) {
    const problem = await examine(subject, tools, watch, signal);
    if (problem === null || timers.steadyMs() + interval > limit) return problem;
    const { code, message } = problem.reason;
    log.warn(`not healthy yet: ${message}`, { code });
    await timers.sleep(interval, signal);
  }
}

/**
 * One look at everything. The mirror comes last: a problem with it alone may not be the
 * system's fault.
 */
async function examine(
  subject: HealthSubject,
  tools: HealthGateTools,
  watch: RestartWatch,
  signal: AbortSignal | undefined,
): Promise<HealthProblem | null> {
  const { release, afterBoot, trust } = subject;
  const judgeSystem = afterBoot ? judgeBootedSystem : judgeRunningSystem;
  const wrong = judgeSystem(release, await observe(tools, release.toplevel));
  if (wrong !== null) return unhealthy(wrong, { kind: "wrongSystem" });
  const units = await judgeUnits(subject, tools, watch);
  if (units !== null) return units;
  const check = await judgeChecks(release, tools, signal);
  if (check !== null) return check;
  return tools.settings.health.mirror ? judgeMirrors(release, trust, tools, signal) : null;
}

function unhealthy(message: string, problem: Problem): HealthProblem {
  return { reason: { code: "HEALTH_FAILED", message }, problem };
}

/** What is wrong with units since the baseline; null if nothing, or units cannot be seen. */
async function judgeUnits(
  { baseline, failedJobs }: HealthSubject,
  { services, timers, settings }: Pick<HealthGateTools, "services" | "timers" | "settings">,
  watch: RestartWatch,
): Promise<HealthProblem | null> {
  const troubles = await services.unitTroubles();
  if (!troubles) return null;
  const { settle, ignoreUnits } = settings.health;
  const counted = (units: readonly string[]): string[] => withoutIgnored(units, ignoreUnits);
  const unhealthyUnits = (words: string, units: readonly string[]): HealthProblem =>
    unhealthy(`${words}: ${units.join(", ")}`, { kind: "units", units });
  const failed = counted(newlyFailedUnits(baseline, troubles.failed));
  if (failed.length > 0) return unhealthyUnits("units failed", failed);
  const missing = counted(await missingAfter(failedJobs, baseline, services));
  if (missing.length > 0) return unhealthyUnits("units did not start", missing);
  const restarts = watch.look(troubles.restarts, timers.steadyMs(), settle);
  const restarted = counted(restarts);
  return restarted.length > 0 ? unhealthyUnits("units keep restarting", restarted) : null;
}

/**
 * Units that a switch with failed jobs left inactive: those of the jobs, and those that were
 * active before. Without failed jobs an inactive unit is as the release wants it.
 */
async function missingAfter(
  jobs: readonly string[] | null,
  { activeUnits: wereActive = [], failedUnits }: Baseline,
  services: AgentTools["services"],
): Promise<string[]> {
  if (jobs === null) return [];
  const units = [...new Set([...jobs, ...wereActive])];
  const missing = missingUnits({ wereActive, jobs }, await services.unitStates(units));
  return missing.filter((unit) => !failedUnits.includes(unit));
}

/** What the first operator's check that fails has found and printed; the host's own come first. */
async function judgeChecks(
  { checks }: Release,
  { settings, probe }: Pick<HealthGateTools, "settings" | "probe">,
  signal: AbortSignal | undefined,
): Promise<HealthProblem | null> {
  for (const check of [...settings.health.checks, ...checks]) {
    try {
      await probe(check, signal);
    } catch (thrown) {
      const error = toPullError(thrown);
      if (error.code === "INTERRUPTED") throw error;
      const found = unhealthy(error.message, { kind: "check" });
      return error instanceof CheckFailure && error.lastLines.length > 0
        ? { ...found, lastLines: error.lastLines }
        : found;
    }
  }
  return null;
}

/**
 * Errors of releases whose signatures were good. A mirror that goes back to one while a new system
 * is judged would have the host go back, too.
 */
const VERIFIED: ReadonlySet<string | undefined> = new Set([
  "SEQUENCE_REPLAYED",
  "SEQUENCE_CONFLICT",
  "SEQUENCE_FORKED",
]);

/** Whether a release can be read now, from whichever mirror, and the host finds itself in it. */
async function judgeMirrors(
  release: Release,
  trust: TrustMemories,
  tools: HealthGateTools,
  signal: AbortSignal | undefined,
): Promise<HealthProblem | null> {
  const { accepted, error, verdicts } = await poll(tools, trust, {
    ...{ signal, enough: "first" },
    longest: Math.max(tools.settings.health.timeout, tools.settings.limits.stallTimeout),
  });
  // What a release says of hosts that the agent lacks features for, nobody can tell here.
  if (accepted?.offered.kind === "ahead") return null;
  if (accepted) return judgeName(release, accepted.offered.signed.manifest, tools.hostname());
  // It was read and verified: whoever answers with it says nothing about this system.
  const wasVerified = verdicts.some(({ code }) => VERIFIED.has(code));
  if (wasVerified && tools.hostname() === release.hostname) return null;
  const why = error ?? new PullError("MIRROR_UNREACHABLE", "no mirror answered");
  const message = `no release can be read now: ${why.code}: ${why.message}`;
  return { reason: { code: "HEALTH_MIRROR", message }, problem: { kind: "mirror" } };
}

/**
 * Whether a host that has another name now finds itself in the channel, as the same system. One
 * that the channel no longer names by its old name either is no fault of the system.
 */
function judgeName(release: Release, manifest: Manifest, name: string): HealthProblem | null {
  if (name === release.hostname) return null;
  const entry = entryOf(manifest, name);
  if (entry?.toplevel === release.toplevel) return null;
  if (entry === undefined && entryOf(manifest, release.hostname) === undefined) return null;
  const finds =
    entry === undefined ? `does not name ${name}` : `names ${entry.toplevel} for ${name}`;
  const message =
    `the host is called ${name} now, and was ${release.hostname}: ` +
    `release ${manifest.sequence} ${finds}`;
  return { reason: { code: "HEALTH_UNBLAMED", message }, problem: { kind: "name" } };
}

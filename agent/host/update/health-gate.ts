import { setTimeout as sleep } from "node:timers/promises";
import type { TrustMemories } from "../../core/release/acceptance.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import {
  RestartWatch,
  judgeBootedSystem,
  judgeRunningSystem,
  newlyFailedUnits,
} from "../../core/update/health.ts";
import type { Baseline, Reason } from "../../core/update/machine.ts";
import type { Release } from "../../core/formats/manifest.ts";
import type { AgentTools } from "../agent.ts";
import { poll } from "../poll/poll.ts";
import { observe } from "./observe.ts";

/** What is to be judged. */
export interface HealthSubject {
  readonly release: Release;
  readonly baseline: Baseline;
  /** True where the system was booted, false where it was switched to. */
  readonly afterBoot: boolean;
  readonly trust: TrustMemories;
}

/**
 * Judges the system that runs now: it must be the release, with no units failed that
 * had not failed before, able to read a release from a mirror, and pass the operator's
 * checks. After the settle time everything is tried until all of it holds at once, or
 * the time is over. Gives null, or what was still wrong.
 */
export async function passHealthGate(
  subject: HealthSubject,
  tools: AgentTools,
  signal: AbortSignal | undefined,
): Promise<Reason | null> {
  const { settle, timeout, interval } = tools.settings.health;
  const watch = new RestartWatch(subject.baseline);
  const troubles = await tools.services.unitTroubles();
  if (troubles) {
    watch.look(troubles.restarts, performance.now(), settle);
    await pause(settle, signal);
  }
  const limit = performance.now() + timeout;
  for (;;) {
    const problem = await examine(subject, tools, watch, signal);
    if (problem === null || performance.now() + interval > limit) return problem;
    tools.log.warn(`not healthy yet: ${problem.message}`, { code: problem.code });
    await pause(interval, signal);
  }
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, signal ? { signal } : {});
}

/** One look at everything; the mirror comes last, since its failure alone may not be the system's. */
async function examine(
  { release, baseline, afterBoot, trust }: HealthSubject,
  tools: AgentTools,
  watch: RestartWatch,
  signal: AbortSignal | undefined,
): Promise<Reason | null> {
  const { settings, services, store, probe } = tools;
  const unhealthy = (message: string): Reason => ({ code: "HEALTH_FAILED", message });

  const host = await observe(store);
  const wrong = (afterBoot ? judgeBootedSystem : judgeRunningSystem)(release, host);
  if (wrong !== null) return unhealthy(wrong);

  const troubles = await services.unitTroubles();
  if (troubles) {
    const failed = newlyFailedUnits(baseline, troubles.failed);
    if (failed.length > 0) return unhealthy(`units failed: ${failed.join(", ")}`);
    const { settle } = settings.health;
    const restarted = watch.look(troubles.restarts, performance.now(), settle);
    if (restarted.length > 0) return unhealthy(`units keep restarting: ${restarted.join(", ")}`);
  }

  for (const check of [...settings.health.checks, ...release.checks]) {
    try {
      await probe(check, signal);
    } catch (thrown) {
      const error = toPullError(thrown);
      if (error.code === "INTERRUPTED") throw error;
      return unhealthy(error.message);
    }
  }

  if (!settings.health.mirror) return null;
  const { accepted, error } = await poll(
    settings,
    tools.mirrors,
    tools.cache,
    trust,
    tools.clock.now(),
    signal,
  );
  if (accepted) return null;
  const why = error ?? new PullError("MIRROR_UNREACHABLE", "no mirror answered");
  return {
    code: "HEALTH_MIRROR",
    message: `no release can be read now: ${why.code}: ${why.message}`,
  };
}

import { pollWait } from "../../core/schedule/poll-schedule.ts";
import { backoffMs } from "../../core/update/backoff.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { TickOutcome } from "../poll/finding.ts";

/** What it takes to say when the next poll is. */
export type PaceTools = Pick<AgentTools, "settings" | "clock" | "random">;

/**
 * When the service polls again: as the settings say, and sooner after a poll that found no
 * release because of something that may mend itself, such as a network that is not up yet.
 */
export class PollPace {
  readonly #tools: PaceTools;
  /** Polls without an answer since the last one with an answer. */
  #failures = 0;

  constructor(tools: PaceTools) {
    this.#tools = tools;
  }

  /** Milliseconds until the next poll by the settings alone. */
  schedule(): number {
    const { settings, clock, random } = this.#tools;
    return pollWait(settings.poll, clock.now(), random());
  }

  /** Milliseconds until the next poll, after one that came to this. */
  after({ release, error }: Pick<TickOutcome, "release" | "error">): number {
    // A stick that is elsewhere is watched for, and is no failure.
    const isUnanswered = release === null && error?.transient && error.code !== "MIRROR_ABSENT";
    this.#failures = isUnanswered ? this.#failures + 1 : 0;
    const scheduled = this.schedule();
    if (this.#failures === 0) return scheduled;
    const { settings, random } = this.#tools;
    const { retryBase: base, retryMax: max } = settings.limits;
    return Math.min(scheduled, backoffMs(this.#failures, { base, max }, random()));
  }
}

import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import type { BarrierRequest } from "../../operator/channel/barriers.ts";
import { wavesOf, type RolloutRequest } from "../../operator/channel/rollout-request.ts";

/** Options of every command that says when whose turn comes. */
export interface RolloutOptions {
  readonly canary: readonly string[];
  readonly waves?: string;
  readonly over?: string;
  readonly notBefore?: string;
  readonly paused?: string;
  /** False for `--no-barrier`. */
  readonly barrier?: number | false;
}

/** What the options say of a rollout. Throws USAGE. */
export function rolloutRequest(options: RolloutOptions): RolloutRequest {
  const { notBefore, paused } = options;
  return {
    waves: wavesOf(options),
    notBefore: notBefore === undefined ? undefined : utcTime(notBefore, "--not-before"),
    paused,
  };
}

/** What they say of barriers. */
export function barrierRequest({ barrier }: RolloutOptions): BarrierRequest {
  if (barrier === undefined) return { kind: "keep" };
  return barrier === false ? { kind: "drop" } : { kind: "add", sequence: barrier };
}

/** A time with a zone, in UTC: where the operator sits must not matter. Throws USAGE. */
function utcTime(text: string, option: string): string {
  if (!z.iso.datetime({ offset: true }).safeParse(text).success) {
    throw new PullError(
      "USAGE",
      `${option}: expected a time with its zone, such as 2026-01-31T06:00Z or ` +
        `2026-01-31T06:00+01:00, found ${JSON.stringify(text)}`,
    );
  }
  return new Date(text).toISOString();
}

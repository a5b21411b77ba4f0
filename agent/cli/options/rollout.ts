import { Command, type OptionValues } from "@commander-js/extra-typings";
import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import type { BarrierRequest } from "../../operator/channel/barriers.ts";
import { wavesOf, type RolloutRequest } from "../../operator/channel/rollout-request.ts";
import { positive, reason, repeatable } from "./values.ts";

/** The command with the options that say when whose turn comes. */
export function withRollout<Arguments extends unknown[], Options extends OptionValues>(
  command: Command<Arguments, Options>,
) {
  return command
    .addOption(repeatable("--canary <who>", "a host or @GROUP that goes first"))
    .option(
      "--waves <who=after,…>",
      "who goes how long after the start: 10%=2h,100%=6h+1d; WHO is hosts, @GROUPs and a share, joined by +; +OVER spreads the turns",
    )
    .option("--over <duration>", "all others evenly over this time, after the last wave")
    .option("--not-before <time>", "when the rollout starts (default: at once)")
    .option("--paused <reason>", "let no host begin before `release resume`", reason)
    .option(
      "--barrier <sequence>",
      "an earlier release that every host must reach first; later releases carry it on",
      positive,
    )
    .option("--no-barrier", "forget the barriers of the current release");
}

/** What those options say. */
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

/** A time with its zone, as UTC: it must not depend on the operator's own time zone. Throws USAGE. */
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

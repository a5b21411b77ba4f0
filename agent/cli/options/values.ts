import { InvalidArgumentError, Option } from "@commander-js/extra-typings";
import * as z from "zod";
import { channelSchema, reasonSchema } from "../../core/formats/manifest.ts";
import { parseDuration } from "../../core/text/duration.ts";

/** An option that may be repeated; `absent` says in the help what applies without it. */
export function repeatable<Flags extends string>(
  flags: Flags,
  description: string,
  absent = "none",
) {
  const none: readonly string[] = [];
  return new Option(flags, `${description}; may be repeated`)
    .argParser(collect)
    .default(none, absent);
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

/** The same for names of channels. */
export function repeatableChannel(description: string, absent: string) {
  const none: readonly string[] = [];
  return new Option("--channel <name>", `${description}; may be repeated`)
    .argParser((value: string, before: readonly string[]) => collect(channelName(value), before))
    .default(none, absent);
}

/** The name of a channel, which is part of a path on mirrors. Throws InvalidArgumentError. */
export function channelName(value: string): string {
  if (channelSchema.safeParse(value).success) return value;
  throw new InvalidArgumentError("expected a channel, such as stable");
}

/** The number from 1 that `value` says. Throws InvalidArgumentError, as all of these do. */
export function positive(value: string): number {
  if (!/^[1-9]\d{0,14}$/.test(value)) throw new InvalidArgumentError("expected a positive number");
  return Number(value);
}

/** The number from 0 that `value` says. */
export function natural(value: string): number {
  if (!/^\d{1,15}$/.test(value)) throw new InvalidArgumentError("expected a number");
  return Number(value);
}

/** What a reason has to be. */
export const REASON_RULE = "expected a reason, one line of at most 500 characters";

/** A reason that a release gives to people. Throws InvalidArgumentError. */
export function reason(value: string): string {
  if (reasonSchema.safeParse(value).success) return value;
  throw new InvalidArgumentError(REASON_RULE);
}

/** A time with its zone, in UTC. */
export function time(value: string): string {
  const parsed = z.iso.datetime({ offset: true }).safeParse(value);
  if (!parsed.success) {
    throw new InvalidArgumentError("expected a time with its zone, such as 2026-12-24T18:00:00Z");
  }
  return new Date(parsed.data).toISOString();
}

/** A duration, none (`0s`), or whole years such as `1y`, of 365 days each; milliseconds. */
export function durationOrYears(value: string): number {
  if (value === "0s") return 0;
  const years = /^(\d{1,2})y$/.exec(value)?.[1];
  return years === undefined ? duration(value) : Number(years) * 365 * 86_400_000;
}

/** A duration above zero, in milliseconds. */
export function duration(value: string): number {
  const ms = parseDuration(value);
  if (ms === null || ms === 0) {
    throw new InvalidArgumentError("expected a duration such as 12h or 90d");
  }
  return ms;
}

import * as z from "zod";
import { durationSchema, positiveDurationSchema } from "../text/duration.ts";
import { cronSchema } from "./cron.ts";
import { timeZoneSchema } from "./local-time.ts";
import { Recurrence } from "./recurrence.ts";

/** Time between polls if the configuration says nothing. */
export const DEFAULT_INTERVAL_MS = 15 * 60 * 1000;

/** `poll` of the configuration file. */
export const pollSchema = z
  .strictObject({
    interval: positiveDurationSchema.optional().describe("Time from one poll to the next."),
    cron: cronSchema
      .optional()
      .describe("Cron expression of five or six fields, instead of an interval."),
    timezone: timeZoneSchema
      .optional()
      .describe("IANA time zone of the cron expression; UTC if absent."),
    jitter: durationSchema
      .prefault("2m")
      .describe("Up to this much, chosen at random, is added to every wait."),
  })
  .refine((poll) => poll.interval === undefined || poll.cron === undefined, {
    error: "expected an interval or a cron expression, not both",
  })
  .refine((poll) => poll.timezone === undefined || poll.cron !== undefined, {
    error: "expected a time zone only together with a cron expression",
  });

/** When this host polls. Durations are in milliseconds. */
export type PollSettings = { readonly jitter: number } & (
  | { readonly kind: "interval"; readonly interval: number }
  | { readonly kind: "cron"; readonly cron: string; readonly timezone: string }
);

/** `poll` with what is absent filled in. */
export function pollSettingsOf({
  interval,
  cron,
  timezone,
  jitter,
}: z.output<typeof pollSchema>): PollSettings {
  return cron === undefined
    ? { kind: "interval", interval: interval ?? DEFAULT_INTERVAL_MS, jitter }
    : { kind: "cron", cron, timezone: timezone ?? "UTC", jitter };
}

/**
 * The wait until the next poll, in milliseconds. `random` is from [0, 1): the jitter is added
 * to every wait, so that hosts that started together do not poll together.
 */
export function pollWait(poll: PollSettings, now: Date, random: number): number {
  const jitter = Math.round(random * poll.jitter);
  if (poll.kind === "interval") return poll.interval + jitter;
  const next = new Recurrence(poll).after(now);
  if (!next) throw new Error(`poll.cron: ${poll.cron} never comes`);
  return next.getTime() - now.getTime() + jitter;
}

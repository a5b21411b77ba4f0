import { z } from "zod";

/** What an accepted release waits for on this host, as codes that reports and metrics share. */
export const WAIT_REASONS = [
  "HELD",
  "WINDOW_CLOSED",
  "CONFIRMATION_MISSING",
  "NOT_BEFORE",
  "ROLLOUT_PENDING",
  "ROLLOUT_PAUSED",
  "BARRIER_AHEAD",
] as const;
export type WaitReason = (typeof WAIT_REASONS)[number];

/** One thing that keeps an accepted release from being applied now. */
export interface Wait {
  readonly reason: WaitReason;
  /** For people: what is waited for, and how it ends. */
  readonly message: string;
  /** UTC time at which it ends by itself; null where somebody has to do something. */
  readonly until: string | null;
  /** Whether a person's `apply` waits too, or only the service. */
  readonly binds: "service" | "everyone";
  /** Whether the closure may be brought into the store meanwhile. */
  readonly allowsFetch: boolean;
}

/** A wait that was written down. */
export const waitSchema = z.strictObject({
  reason: z.enum(WAIT_REASONS),
  message: z.string(),
  until: z.iso.datetime().nullable(),
  binds: z.enum(["service", "everyone"]),
  allowsFetch: z.boolean(),
}) satisfies z.ZodType<Wait>;

/** When the last of them ends by itself; null where one does not, or there is none. */
export function endOf(waits: readonly Wait[]): string | null {
  let last: string | null = null;
  for (const { until } of waits) {
    if (until === null) return null;
    if (last === null || Date.parse(until) > Date.parse(last)) last = until;
  }
  return last;
}

import * as z from "zod";

/** What an accepted release can wait for on this host, as codes. Reports and metrics share them. */
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

/** Whom a wait binds. */
export const WAIT_BINDS = ["service", "everyone"] as const;

/** One thing that keeps an accepted release from being applied now. */
export const waitSchema = z.strictObject({
  reason: z.enum(WAIT_REASONS),
  /** For people: what is waited for, and how it ends. */
  message: z.string().max(2000),
  /** UTC time at which it ends by itself; null if a person has to act. */
  until: z.iso.datetime().nullable(),
  /** Whether a person's `apply` waits too, or only the service. */
  binds: z.enum(WAIT_BINDS),
  /** Whether the closure may be fetched meanwhile. */
  allowsFetch: z.boolean(),
});
export type Wait = Readonly<z.infer<typeof waitSchema>>;

/** When the last of them ends by itself; null if one does not, or if there is none. */
export function endOf(waits: readonly Wait[]): string | null {
  let last: string | null = null;
  for (const { until } of waits) {
    if (until === null) return null;
    if (last === null || Date.parse(until) > Date.parse(last)) last = until;
  }
  return last;
}

/** Whether the closure may be fetched during all of these waits. */
export function allowFetch(waits: readonly Wait[]): boolean {
  return waits.every(({ allowsFetch }) => allowsFetch);
}

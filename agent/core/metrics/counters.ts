import * as z from "zod";

/** What the agent counts, for metrics; kept on disk so that a restart counts on. */
export const countersSchema = z.strictObject({
  polls: z.int().nonnegative(),
  /** Polls with an error in their outcome. */
  pollFailures: z.int().nonnegative(),
  /** Polls that made this host into another release. */
  updates: z.int().nonnegative(),
});
export type AgentCounters = z.infer<typeof countersSchema>;

export const NO_COUNTS: AgentCounters = { polls: 0, pollFailures: 0, updates: 0 };

/** The counters after one more poll. */
export function countPoll(
  before: AgentCounters,
  { failed, updated }: { failed: boolean; updated: boolean },
): AgentCounters {
  return {
    ...before,
    polls: before.polls + 1,
    pollFailures: before.pollFailures + (failed ? 1 : 0),
    updates: before.updates + (updated ? 1 : 0),
  };
}

import * as z from "zod";
import type { HistoryStore } from "../../core/ports.ts";
import type { AgentRecord } from "../../core/update/record.ts";
import type { State } from "../../core/update/states.ts";
import type { AgentTools } from "../agent-tools.ts";

/** What runs on this host now, in `status --json` and `check --json`. */
export const activitySchema = z.strictObject({
  service: z
    .int()
    .positive()
    .nullable()
    .describe("process id of `nixos-pull run`; null if none runs, or if that cannot be seen"),
  update: z
    .int()
    .positive()
    .nullable()
    .describe("process id of what polls or updates now, such as `nixos-pull apply`; null for none"),
  since: z.iso
    .datetime()
    .nullable()
    .describe("when the state began that is recorded; null for Idle, and if that is not known"),
  fetched: z
    .strictObject({
      received: z.int().nonnegative(),
      total: z.int().nonnegative(),
      rate: z.number().nonnegative().nullable().describe("bytes a second; null if not known yet"),
    })
    .nullable()
    .describe("how far the download is, in bytes; null if there is none now"),
});
export type Activity = Readonly<z.infer<typeof activitySchema>>;

/** What reading it takes. */
export type ActivityTools = Pick<AgentTools, "locks" | "history" | "fetchSign">;

/** Sees which processes of the agent run, and how far they are. Looks only. */
export async function readActivity(
  { state }: Pick<AgentRecord, "state">,
  { locks, history, fetchSign }: ActivityTools,
): Promise<Activity> {
  const [service, update] = await Promise.all([locks.holder("agent"), locks.holder("update")]);
  const since = await beginningOf(state, history);
  const told = state.name === "Fetching" && update !== null ? await fetchSign.read() : null;
  // What an earlier fetch told lies there until the next one tells something.
  const isOfNow = told?.process === update && (since === null || told.at >= since);
  const fetched =
    told && isOfNow ? { received: told.received, total: told.total, rate: told.rate } : null;
  return { service, update, since, fetched };
}

/** A state that lasts longer than so many entries of the history has no beginning here. */
const MAX_ENTRIES = 500;

/** When the state began that is recorded: the first of the last entries that led to it. */
async function beginningOf(state: State, history: HistoryStore): Promise<string | null> {
  if (state.name === "Idle") return null;
  let since: string | null = null;
  let seen = 0;
  for await (const entry of history.newestFirst()) {
    if (entry.state !== state.name || seen++ >= MAX_ENTRIES) break;
    since = entry.at;
  }
  return since;
}

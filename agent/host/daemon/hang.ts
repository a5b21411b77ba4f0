import { toPullError } from "../../core/errors.ts";
import type { HistoryEntry } from "../../core/update/history-entry.ts";
import type { Reason } from "../../core/update/states.ts";
import type { AgentTools } from "../agent-tools.ts";

/** Name of a hang in the history. */
export const HUNG = "AgentHung";

/** For so long, status and reports say that the service hung. */
const RECENT_MS = 24 * 60 * 60_000;

/** What telling about a hang takes. */
export type HangTools = Pick<AgentTools, "watchdog" | "state" | "history" | "clock" | "log">;

/**
 * Notes in the history that systemd ended an earlier service because it hung. What was under way
 * then goes on as after any other end of the agent. If that cannot be noted, a line in the log says so.
 */
export async function tellHang(tools: HangTools): Promise<void> {
  const { watchdog, state, history, clock, log } = tools;
  try {
    const hang = await watchdog.takeHang();
    if (hang === null) return;
    const { record } = await state.recall();
    const where = record?.state ?? { name: "Idle" };
    const message =
      `the service gave no sign of life in state ${where.name}, and systemd ended it at ` +
      `${hang.toISOString()} and started it again`;
    log.error(message, { code: "AGENT_HUNG" });
    await history.append({
      at: clock.now().toISOString(),
      event: HUNG,
      state: where.name,
      ...("release" in where && {
        sequence: where.release.sequence,
        toplevel: where.release.toplevel,
      }),
      ...{ code: "AGENT_HUNG", message },
    });
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    log.error(`whether an earlier service hung is not noted: ${message}`, { code });
  }
}

/** What `status` and reports say about a hang of the last day. */
export function hangAlarms(last: HistoryEntry | null, now: Date): Reason[] {
  const age = last ? now.getTime() - Date.parse(last.at) : Infinity;
  return last?.message !== undefined && age < RECENT_MS
    ? [{ code: "AGENT_HUNG", message: last.message }]
    : [];
}

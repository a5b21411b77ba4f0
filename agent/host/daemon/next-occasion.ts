import { endOf } from "../../core/schedule/waiting.ts";
import type { Settings } from "../../core/settings.ts";
import type { TickOutcome } from "../poll/finding.ts";
import { nextRebootWindow } from "../update/reboot.ts";

/** How often the host looks whether somebody still blocks its reboot. */
const BLOCKED_WAIT_MS = 5 * 60_000;

/**
 * When there will be something to do again before the next poll, if that is known: a retry, the
 * end of a wait, a window for a reboot. What is overdue and could not be done does not count.
 */
export function nextOccasion(outcome: TickOutcome, settings: Settings, now: Date): number | null {
  const { record, decision } = outcome;
  const { state, pendingReboot } = record;
  // Past a barrier the release behind it comes next.
  if (outcome.next && (outcome.updated || decision?.kind === "adopt")) return now.getTime();
  const reboots = pendingReboot !== null && settings.reboot.policy === "window";
  const blocked = outcome.error?.code === "REBOOT_BLOCKED";
  const occasions = [
    blocked ? new Date(now.getTime() + BLOCKED_WAIT_MS).toISOString() : null,
    decision?.kind === "waiting" ? endOf(decision.waits) : null,
    reboots ? (nextRebootWindow(settings, now)?.toISOString() ?? null) : null,
    state.name === "Failed" && !state.gaveUp ? state.retryAt : null,
  ].flatMap((at) => (at === null ? [] : Date.parse(at)));
  const tried = state.name === "Failed" && decision?.kind === "update";
  const open = tried ? occasions : occasions.filter((at) => at > now.getTime());
  return open.length === 0 ? null : Math.min(...open);
}

import { createTask, validateDetailed, type ScheduledTask } from "node-cron";
import { PullError } from "../core/errors.ts";
import type { PollSettings } from "../core/settings.ts";

/** Gives the wait until the next poll in milliseconds. */
export type Schedule = (random: number) => number;

/**
 * Makes a schedule of settings. Jitter is added to every wait, so that hosts that
 * started together do not poll together. Throws CONFIG_INVALID for a bad cron
 * expression or time zone.
 */
export function scheduleOf(poll: PollSettings): Schedule {
  if (poll.kind === "interval") {
    return (random) => poll.interval + Math.round(random * poll.jitter);
  }
  const task = cronTask(poll.cron, poll.timezone, "poll");
  return (random) => {
    const next = task.getNextRuns(1)[0];
    if (!next) throw new PullError("CONFIG_INVALID", `poll.cron: ${poll.cron} never comes`);
    return Math.max(0, next.getTime() - Date.now()) + Math.round(random * poll.jitter);
  };
}

/** A checked cron expression. Throws CONFIG_INVALID, naming the key. */
function cronTask(cron: string, timezone: string, key: string): ScheduledTask {
  const { valid, errors } = validateDetailed(cron);
  if (!valid) {
    throw new PullError(
      "CONFIG_INVALID",
      `${key}.cron: ${errors.map(({ message }) => message).join("; ")}, found ${JSON.stringify(cron)}`,
    );
  }
  try {
    new Intl.DateTimeFormat("en", { timeZone: timezone });
  } catch (cause) {
    throw new PullError(
      "CONFIG_INVALID",
      `${key}.timezone: expected an IANA time zone, found ${JSON.stringify(timezone)}`,
      { cause },
    );
  }
  return createTask(cron, () => undefined, { timezone });
}

/** A time that comes again and again and lasts a while. */
export interface Window {
  readonly cron: string;
  readonly timezone: string;
  /** Milliseconds. */
  readonly duration: number;
}

const MINUTE_MS = 60_000;
const MAX_WINDOW_MS = 24 * 60 * MINUTE_MS;

/** Whether `now` lies in the window: it opened at a time not longer ago than it lasts. */
export function isOpen(window: Window, now: Date): boolean {
  const task = cronTask(window.cron, window.timezone, "reboot.window");
  const lasts = Math.min(window.duration, MAX_WINDOW_MS);
  // With a sixth field in front, an expression names seconds.
  const step = window.cron.trim().split(/\s+/).length > 5 ? 1_000 : MINUTE_MS;
  const latest = Math.floor(now.getTime() / step) * step;
  try {
    for (let opened = latest; now.getTime() - opened < lasts; opened -= step) {
      if (task.match(new Date(opened))) return true;
    }
    return false;
  } finally {
    // node-cron keeps every task that was not destroyed.
    void task.destroy();
  }
}

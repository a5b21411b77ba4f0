import { createTask, validateDetailed, type ScheduledTask } from "node-cron";
import { PullError } from "../../core/errors.ts";
import type { PollSettings } from "../../core/settings.ts";

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
  const task = cronTask(poll.cron, poll.timezone);
  return (random) => {
    const next = task.getNextRuns(1)[0];
    if (!next) throw new PullError("CONFIG_INVALID", `poll.cron: ${poll.cron} never comes`);
    return Math.max(0, next.getTime() - Date.now()) + Math.round(random * poll.jitter);
  };
}

/** A checked cron expression. Throws CONFIG_INVALID, naming the key. */
function cronTask(cron: string, timezone: string): ScheduledTask {
  const { valid, errors } = validateDetailed(cron);
  if (!valid) {
    throw new PullError(
      "CONFIG_INVALID",
      `poll.cron: ${errors.map(({ message }) => message).join("; ")}, found ${JSON.stringify(cron)}`,
    );
  }
  try {
    new Intl.DateTimeFormat("en", { timeZone: timezone });
  } catch (cause) {
    throw new PullError(
      "CONFIG_INVALID",
      `poll.timezone: expected an IANA time zone, found ${JSON.stringify(timezone)}`,
      { cause },
    );
  }
  return createTask(cron, () => undefined, { timezone });
}

import { setTimeout as wait } from "node:timers/promises";
import { PullError } from "../../core/errors.ts";
import { ownActivity } from "../process/activity.ts";
import type { Clock, Timers } from "../../core/ports.ts";

/** The system's clock. */
export const systemClock: Clock = { now: () => new Date() };

/** Node's timers. */
export const systemTimers: Timers = {
  steadyMs: () => performance.now(),
  async sleep(ms, signal) {
    try {
      await ownActivity.during(ms, () => wait(ms, undefined, signal ? { signal } : {}));
    } catch (cause) {
      throw new PullError("INTERRUPTED", "stopped before it was finished", { cause });
    }
  },
};

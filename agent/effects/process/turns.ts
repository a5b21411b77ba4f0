import { setImmediate } from "node:timers/promises";
import { ownActivity } from "./activity.ts";

/** Nothing else runs for so long, or for as long as one item takes. */
const TURN_MS = 10;

/**
 * Does quick synchronous work for every item, and lets others run now and then. For thousands of
 * small files: a synchronous call takes some microseconds, an asynchronous one several times as
 * long, most of it on the main thread. Throws what `work` throws.
 */
export async function inTurns<T>(items: Iterable<T>, work: (item: T) => void): Promise<void> {
  let began = performance.now();
  for (const item of items) {
    work(item);
    if (performance.now() - began < TURN_MS) continue;
    ownActivity.sign();
    await setImmediate();
    began = performance.now();
  }
}

import { availableParallelism } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { parallelMap } from "../../../../agent/effects/process/parallel-map.ts";

describe("parallelMap", () => {
  it("gives results in the items' order, whichever ends first, and never does too much at once", async () => {
    let running = 0;
    let most = 0;
    const results = await parallelMap([30, 1, 20, 1, 10, 1, 5, 1], async (ms) => {
      most = Math.max(most, ++running);
      await delay(ms);
      running--;
      return ms * 2;
    });
    expect(results).toEqual([60, 2, 40, 2, 20, 2, 10, 2]);
    expect(most).toBe(Math.min(8, availableParallelism()));
  });

  it("begins nothing after a failure, waits for what was begun, and throws it", async () => {
    const begun: number[] = [];
    const ended: number[] = [];
    const items = Array.from({ length: availableParallelism() + 5 }, (_, at) => at);
    const all = parallelMap(items, async (item) => {
      begun.push(item);
      if (item === 0) throw new Error("the first");
      await delay(20);
      ended.push(item);
    });
    await expect(all).rejects.toThrow("the first");
    expect(begun).toHaveLength(availableParallelism());
    expect(ended).toHaveLength(availableParallelism() - 1);
  });

  it("does as many at once as it is told, whatever the number of cores", async () => {
    let running = 0;
    let most = 0;
    const work = async (): Promise<void> => {
      most = Math.max(most, ++running);
      await delay(1);
      running--;
    };
    await parallelMap(Array(40).fill(0), work, { atOnce: 17 });
    expect(most).toBe(17);
  });

  it("does nothing for nothing", async () => {
    await expect(parallelMap([], () => Promise.reject(new Error("called")))).resolves.toEqual([]);
  });
});

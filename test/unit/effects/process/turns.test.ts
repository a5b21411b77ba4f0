import { describe, expect, test } from "vitest";
import { inTurns } from "../../../../agent/effects/process/turns.ts";

describe("work in turns", () => {
  test("is done for each item, in order", async () => {
    const done: number[] = [];
    await inTurns([3, 1, 2], (item) => done.push(item));
    expect(done).toEqual([3, 1, 2]);
  });

  test("lets others run before it is over", async () => {
    const events: string[] = [];
    setImmediate(() => events.push("other"));
    const busy = (): void => {
      const until = performance.now() + 12;
      while (performance.now() < until);
      events.push("item");
    };
    await inTurns([busy, busy], (work) => {
      work();
    });
    expect(events).toEqual(["item", "other", "item"]);
  });

  test("ends with the first error", async () => {
    const done: number[] = [];
    const failing = inTurns([1, 2, 3], (item) => {
      if (item === 2) throw new Error("two");
      done.push(item);
    });
    await expect(failing).rejects.toThrow("two");
    expect(done).toEqual([1]);
  });
});

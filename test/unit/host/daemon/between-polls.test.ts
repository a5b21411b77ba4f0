import { describe, expect, test } from "vitest";
import type { StickWatch } from "../../../../agent/core/ports.ts";
import { waitForNews } from "../../../../agent/host/daemon/between-polls.ts";
import { MemoryHost } from "../../../support/memory-host.ts";

const MINUTE_MS = 60_000;
const NEVER = { untilRetry: async () => Infinity, retry: async () => undefined };

interface Wait {
  readonly ms: number;
  readonly reports?: { untilRetry(): Promise<number>; retry(): Promise<void> };
  readonly sticks?: StickWatch;
  readonly config?: object;
  readonly stopAfter?: number;
}

/** Waits on a host; gives what came and how long it took. */
async function waited({ ms, reports = NEVER, sticks, config, stopAfter }: Wait) {
  const host = new MemoryHost(config);
  const stop = new AbortController();
  if (stopAfter !== undefined) {
    void host.time.sleep(stopAfter).then(() => {
      stop.abort();
    });
  }
  const tools = { ...host.tools, sticks: sticks ?? host.tools.sticks };
  const news = await waitForNews(ms, reports, tools, stop.signal);
  return { news, ms: host.time.steadyMs() };
}

/** A watch whose looks find these sticks, one look after the other. */
function sticksOf(...looks: string[][]): StickWatch {
  return { isIdle: false, look: async () => looks.shift() ?? [] };
}

describe("between two polls the service waits", () => {
  test("for as long as it should, also longer than a timer can measure", async () => {
    expect(await waited({ ms: MINUTE_MS })).toEqual({ news: undefined, ms: MINUTE_MS });
    const sixtyDays = 60 * 24 * 60 * MINUTE_MS;
    expect(await waited({ ms: sixtyDays })).toEqual({ news: undefined, ms: sixtyDays });
  });

  test("until it is stopped", async () => {
    expect(await waited({ ms: MINUTE_MS, stopAfter: 7_000 })).toEqual({
      ...{ news: undefined, ms: 7_000 },
    });
  });

  test("until it is stopped, also while it watches for sticks", async () => {
    const config = { sticks: { watch: "10s" } };
    const sticks = sticksOf(["file:///a"]);
    expect(await waited({ ms: MINUTE_MS, sticks, config, stopAfter: 7_000 })).toEqual({
      ...{ news: undefined, ms: 7_000 },
    });
  });

  test("until a stick comes, and says which", async () => {
    const sticks = sticksOf([], ["file:///a", "file:///b"]);
    const config = { sticks: { watch: "10s" } };
    expect(await waited({ ms: MINUTE_MS, sticks, config })).toEqual({
      ...{ news: "file:///a has news, file:///b has news", ms: 20_000 },
    });
  });

  test("without looking for sticks if the settings do not want that, or none is there", async () => {
    const never = async (): Promise<never> => {
      throw new Error("nobody asked for a look");
    };
    for (const [isIdle, watch] of [
      [true, "10s"],
      [false, "0s"],
    ] as const) {
      const wait = {
        ms: MINUTE_MS,
        sticks: { isIdle, look: never },
        config: { sticks: { watch } },
      };
      expect(await waited(wait)).toEqual({ news: undefined, ms: MINUTE_MS });
    }
  });

  test("and tries meanwhile to deliver a report, once a second at most", async () => {
    const tries: number[] = [];
    const waits = [20_000, 0, 15_000, 60_000];
    const host = new MemoryHost();
    const reports = {
      untilRetry: async () => waits.shift() ?? Infinity,
      retry: async () => void tries.push(host.time.steadyMs()),
    };
    await waitForNews(MINUTE_MS, reports, host.tools, new AbortController().signal);
    expect(tries).toEqual([20_000, 21_000, 36_000]);
    expect(host.time.steadyMs()).toBe(MINUTE_MS);
  });

  test("and tries no report again that is due just when the poll is", async () => {
    const tries: number[] = [];
    const reports = {
      untilRetry: async () => MINUTE_MS,
      retry: async () => void tries.push(1),
    };
    expect(await waited({ ms: MINUTE_MS, reports })).toEqual({ news: undefined, ms: MINUTE_MS });
    expect(tries).toEqual([]);
  });

  test("and tries no report again once it is stopped", async () => {
    const tries: number[] = [];
    const reports = {
      untilRetry: async () => 20_000,
      retry: async () => void tries.push(1),
    };
    expect(await waited({ ms: MINUTE_MS, reports, stopAfter: 7_000 })).toEqual({
      ...{ news: undefined, ms: 7_000 },
    });
    expect(tries).toEqual([]);
  });
});

import { describe, expect, it } from "vitest";
import { failedUpdate } from "../../../../agent/host/report/failed-update.ts";
import type { HistoryEntry } from "../../../../agent/core/update/history-entry.ts";

const entry = (minute: number, event: string, more: Partial<HistoryEntry> = {}): HistoryEntry => ({
  ...{ at: `2026-11-24T12:0${minute}:00.000Z`, event, state: "Idle", sequence: 2 },
  ...more,
});

describe("failedUpdate", () => {
  const history = [
    entry(1, "ActivationSucceeded", { lastLines: ["starting", "\u001b[31mnginx failed"] }),
    entry(2, "ActivationRejected", { code: "HEALTH_FAILED", message: "nginx.service failed" }),
    entry(3, "RollbackSucceeded"),
  ];

  it("finds the lines that the switch left before its system was found unhealthy", () => {
    expect(failedUpdate(history, null)).toEqual({
      ...{ at: history[1]!.at, sequence: 2, toplevel: null, code: "HEALTH_FAILED" },
      ...{ message: "nginx.service failed", lastLines: ["starting", "\ufffd[31mnginx failed"] },
    });
  });

  it("does not take another release's lines", () => {
    const other = history.map((it, at) => (at === 0 ? { ...it, sequence: 1 } : it));
    expect(failedUpdate(other, null)?.lastLines).toEqual([]);
  });

  it("forgets it once another release was committed, and finds nothing in nothing", () => {
    expect(failedUpdate(history, "2026-11-24T12:02:30.000Z")).toBeUndefined();
    expect(failedUpdate([], null)).toBeUndefined();
  });

  it("takes the failure of the system that is denied, however many others failed since", () => {
    const denied = `/nix/store/${"0".repeat(32)}-four`;
    const both = [
      entry(1, "ActivationRejected", { sequence: 4, toplevel: denied, lastLines: ["four"] }),
      entry(2, "ActivationRejected", { sequence: 3, lastLines: ["three"] }),
    ];
    expect(failedUpdate(both, null)).toMatchObject({ sequence: 3, lastLines: ["three"] });
    expect(failedUpdate(both, null, denied)).toMatchObject({ sequence: 4, lastLines: ["four"] });
    expect(failedUpdate(both, null, `${denied}teen`)).toMatchObject({ sequence: 3 });
  });

  it("keeps to the report's bounds", () => {
    const lines = Array.from({ length: 50 }, (_, at) => `${at} ${"x".repeat(1000)}`);
    const long = failedUpdate([entry(1, "ActivationRejected", { lastLines: lines })], null);
    expect(long!.lastLines).toHaveLength(20);
    expect(long!.lastLines.at(-1)).toMatch(/^49 x+…$/);
    expect(Math.max(...long!.lastLines.map((it) => it.length))).toBe(300);
  });
});

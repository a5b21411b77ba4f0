import { describe, expect, test } from "vitest";
import { tick } from "../../../../agent/host/tick.ts";
import { readCounters, readPollReport } from "../../../../agent/host/poll/poll-report.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;
const START = "2026-02-01T00:00:00.000Z";

function heldHost(): MemoryHost {
  const host = new MemoryHost();
  host.hold = { kind: "held", hold: { at: START, until: null, reason: "audit" } };
  host.publish({ sequence: 7, system: "2" });
  return host;
}

const linesOf = (host: MemoryHost) => host.history.filter(({ event }) => event === "ReleaseWaits");

describe("a wait", () => {
  test("gets one line in the history, however often it is found", async () => {
    const host = heldHost();
    await tick(host.tools, PATIENT);
    const [wait] = (await readPollReport(host.tools.files))?.waits ?? [];
    const line = {
      ...{ at: START, event: "ReleaseWaits", state: "Idle" },
      ...{ sequence: 7, toplevel: system("2"), mode: "switch", code: "HELD" },
      message: wait?.message,
    };
    expect(wait?.message).toContain("audit");
    expect(linesOf(host)).toEqual([line]);
    await tick(host.tools, PATIENT);
    expect(linesOf(host)).toEqual([line]);
  });

  test("for another reason, or of another release, gets another", async () => {
    const host = heldHost();
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "2" });
    await tick(host.tools, PATIENT);
    expect(linesOf(host).map(({ sequence }) => sequence)).toEqual([7, 8]);
    host.publish({
      ...{ sequence: 9, system: "2" },
      rollout: { start: START, salt: "s", paused: { since: START, reason: "disks" } },
    });
    await tick(host.tools, PATIENT);
    const waits = (await readPollReport(host.tools.files))?.waits ?? [];
    expect(waits.length).toBeGreaterThan(1);
    expect(linesOf(host)[2]?.message).toBe(waits.map(({ message }) => message).join("; "));
  });

  test("that comes again after it ended gets a line again", async () => {
    const host = heldHost();
    await tick(host.tools, PATIENT);
    for (const mirror of host.mirrors) mirror.down = "MIRROR_TLS";
    await tick(host.tools, PATIENT);
    for (const mirror of host.mirrors) mirror.down = null;
    await tick(host.tools, PATIENT);
    expect(linesOf(host)).toHaveLength(2);
  });
});

describe("counters", () => {
  test("count polls, those that failed, and updates", async () => {
    const host = new MemoryHost();
    expect(await readCounters(host.tools.files)).toEqual({
      ...{ polls: 0, pollFailures: 0, updates: 0 },
    });
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    await tick(host.tools, PATIENT);
    for (const mirror of host.mirrors) mirror.down = "MIRROR_TLS";
    await tick(host.tools, PATIENT);
    expect(await readCounters(host.tools.files)).toEqual({
      ...{ polls: 3, pollFailures: 1, updates: 1 },
    });
  });

  test("begin again if they cannot be read", async () => {
    const host = new MemoryHost();
    host.files.set("counters.json", { polls: "many" });
    await tick(host.tools, PATIENT);
    expect(await readCounters(host.tools.files)).toMatchObject({ polls: 1 });
  });
});

describe("a report of a poll that cannot be read", () => {
  test("counts as none", async () => {
    const host = heldHost();
    host.files.set("poll.json", { at: "yesterday" });
    expect(await readPollReport(host.tools.files)).toBeNull();
    await tick(host.tools, PATIENT);
    expect(await readPollReport(host.tools.files)).toMatchObject({
      ...{ at: START, decision: "waiting", error: null, release: { sequence: 7 } },
    });
  });
});

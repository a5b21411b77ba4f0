import { describe, expect, test } from "vitest";
import { tick } from "../../../../agent/host/tick.ts";
import { PullError } from "../../../../agent/core/errors.ts";
import { MemoryHost, system, type SwitchOutcome } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** Has a mirror answer 503 whenever a system is judged: fetches and polls before find it well. */
function flakyMirror(host: MemoryHost): SwitchOutcome {
  const [mirror] = host.mirrors;
  return {
    exitCode: 0,
    meanwhile: () => {
      if (mirror) mirror.down = "MIRROR_UNREACHABLE";
    },
  };
}

/** Ticks every ten minutes for so long, with the mirror well before each; gives when `run` ran. */
async function runsWithin(
  host: MemoryHost,
  run: string,
  ms: number,
  before: (at: number) => void = () => undefined,
): Promise<number[]> {
  const end = host.time.steadyMs() + ms;
  const at: number[] = [];
  while (host.time.steadyMs() < end) {
    for (const mirror of host.mirrors) mirror.down = null;
    before(host.time.steadyMs());
    host.nextSwitch(run, flakyMirror(host));
    host.takeCalls();
    await tick(host.tools, PATIENT);
    if (host.takeCalls().includes(run)) at.push(host.time.steadyMs());
    else host.switches.delete(run);
    host.time.advance(10 * MINUTE_MS);
  }
  return at;
}

/** The most runs in any day. */
function mostInADay(runs: readonly number[]): number {
  return Math.max(...runs.map((at) => runs.filter((it) => it >= at && it < at + DAY_MS).length));
}

describe("a download that breaks off", () => {
  /** Ticks every minute until the release is there; gives how many minutes that took. */
  async function minutesUntilThere(host: MemoryHost): Promise<number> {
    host.publish({ sequence: 7, system: "2" });
    for (let attempt = 0; attempt < 10; attempt++) {
      host.fetchErrors.push(new PullError("MIRROR_UNREACHABLE", "other side closed"));
    }
    for (let minutes = 0; minutes < 10_000; minutes++) {
      await tick(host.tools, PATIENT);
      if (host.record?.committed?.sequence === 7) return minutes;
      host.time.advance(MINUTE_MS);
    }
    throw new Error("it never came");
  }

  test("each time after something new came is tried again soon, each time", async () => {
    const host = new MemoryHost();
    host.fetchesAdvance = true;
    expect(await minutesUntilThere(host)).toBeLessThanOrEqual(20);
  });

  test("each time before anything came is tried again less and less often", async () => {
    expect(await minutesUntilThere(new MemoryHost())).toBeGreaterThan(8 * 60);
  });
});

describe("a system whose failure may be the world's", () => {
  test("is tried a few times a day, five times in all, and then waits; it is never denied", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    const runs = await runsWithin(host, "test 2", 14 * DAY_MS);
    expect(runs).toHaveLength(5);
    expect(mostInADay(runs)).toBe(4);
    expect(host.record).toMatchObject({
      state: { name: "Failed", gaveUp: true, reason: { code: "HEALTH_MIRROR" } },
      denied: [],
    });
  });

  test("is tried once more, if each try takes a reboot", async () => {
    const host = new MemoryHost({ reboot: { policy: "now", grace: "0s" } });
    host.cannotTry = null;
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    let boots = 0;
    for (let tries = 0; tries < 200; tries++) {
      for (const mirror of host.mirrors) mirror.down = null;
      host.takeCalls();
      await tick(host.tools, PATIENT);
      if (host.takeCalls().includes("reboot")) {
        const tried = host.oneShot !== null;
        host.boot();
        if (tried) {
          boots += 1;
          for (const mirror of host.mirrors) mirror.down = "MIRROR_UNREACHABLE";
          await tick(host.tools, PATIENT);
          if (host.takeCalls().includes("reboot")) host.boot();
        }
      }
      host.time.advance(HOUR_MS);
    }
    expect(boots).toBe(2);
    expect(host.running).toBe(system("1"));
    expect(host.record).toMatchObject({ state: { name: "Failed", gaveUp: true }, denied: [] });
  });

  test("is not tried more often because the release is published again and again", async () => {
    const host = new MemoryHost();
    let sequence = 6;
    const runs = await runsWithin(host, "test 2", 5 * DAY_MS, () => {
      sequence += 1;
      host.publish({ sequence, system: "2" });
    });
    // Growing waits, and then one a day, since each release may have mended the world.
    expect(runs.length).toBeGreaterThan(5);
    expect(runs.length).toBeLessThanOrEqual(9);
    expect(mostInADay(runs)).toBe(4);
    expect(mostInADay(runs.slice(4))).toBe(1);
  });

  test("is left for another system at once", async () => {
    const host = new MemoryHost({ activation: { attempts: 1 } });
    host.publish({ sequence: 7, system: "2" });
    expect(await runsWithin(host, "test 2", HOUR_MS)).toHaveLength(1);
    expect(host.record?.state).toMatchObject({ name: "Failed", gaveUp: true });
    for (const mirror of host.mirrors) mirror.down = null;
    host.publish({ sequence: 8, system: "3" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
  });

  test("is tried again when a person asks, and waits again after that", async () => {
    const host = new MemoryHost({ activation: { attempts: 1 } });
    host.publish({ sequence: 7, system: "2" });
    await runsWithin(host, "test 2", HOUR_MS);
    for (const mirror of host.mirrors) mirror.down = null;
    host.nextSwitch("test 2", flakyMirror(host));
    await tick(host.tools, { insistence: "retry" });
    expect(host.record).toMatchObject({ state: { name: "Failed", gaveUp: true }, denied: [] });
    for (const mirror of host.mirrors) mirror.down = null;
    expect(await tick(host.tools, { insistence: "retry" })).toMatchObject({ updated: true });
  });
});

describe("a system whose switch is cut off each time", () => {
  test.each<[string, string, SwitchOutcome]>([
    [
      "for want of a resource",
      "ACTIVATION_INTERRUPTED",
      { exitCode: 11, facts: { lockRefused: false, begun: true } },
    ],
    ["by a signal", "ACTIVATION_INTERRUPTED", { exitCode: null, facts: { begun: true } }],
    ["by its time limit", "ACTIVATION_TIMEOUT", { exitCode: null, timedOut: true }],
  ])("%s is tried a few times, with growing waits, and never denied", async (_, code, outcome) => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", ...Array.from({ length: 99 }, () => outcome));
    const runs: number[] = [];
    for (const end = host.time.steadyMs() + 14 * DAY_MS; host.time.steadyMs() < end;) {
      host.takeCalls();
      await tick(host.tools, PATIENT);
      if (host.takeCalls().includes("test 2")) runs.push(host.time.steadyMs());
      host.time.advance(10 * MINUTE_MS);
    }
    expect(runs).toHaveLength(5);
    expect(mostInADay(runs)).toBe(4);
    expect(host.record).toMatchObject({
      state: { name: "Failed", gaveUp: true, reason: { code } },
      denied: [],
    });
    expect(host.running).toBe(system("1"));
    // The next release does not wait for a person.
    host.publish({ sequence: 8, system: "3" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
  });

  test("by a power cut, before or after the switch, likewise", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    let switches = 0;
    for (let hours = 0; hours < 14 * 24; hours++) {
      const end = new AbortController();
      const cut = (): void => {
        switches += 1;
        end.abort();
      };
      host.switches.set("test 2", [{ exitCode: 0, meanwhile: cut }]);
      await tick(host.tools, { ...PATIENT, signal: end.signal });
      if (end.signal.aborted) {
        host.boot();
        await tick(host.tools, PATIENT);
      }
      host.time.advance(HOUR_MS);
    }
    expect(switches).toBe(5);
    expect(host.record).toMatchObject({
      state: { name: "Failed", gaveUp: true, reason: { code: "ACTIVATION_INTERRUPTED" } },
      denied: [],
    });
  });

  test("by an agent that is restarted ten times each time, likewise", async () => {
    const host = new MemoryHost({ activation: { attempts: 2 } });
    host.publish({ sequence: 7, system: "2" });
    for (let tries = 1; tries <= 2; tries++) {
      for (let restarts = 0; restarts <= 10; restarts++) {
        host.fault("test 2", "INTERRUPTED", "systemctl restart");
        await tick(host.tools, PATIENT);
      }
      await tick(host.tools, PATIENT);
      expect(host.record?.state).toMatchObject({ undone: tries, reason: { code: "RESTART_LOOP" } });
      host.faults.clear();
      host.time.advance(HOUR_MS);
    }
    expect(host.record).toMatchObject({ state: { gaveUp: true }, denied: [] });
  });

  test("by a fault of the agent's own tools, likewise", async () => {
    const host = new MemoryHost({ activation: { attempts: 1 } });
    host.publish({ sequence: 7, system: "2" });
    host.fault("test 2", "INTERNAL", "EIO");
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({
      state: { name: "Failed", gaveUp: true, reason: { code: "INTERNAL" } },
      denied: [],
    });
  });
});

describe("attempts that failed before anything was switched", () => {
  /** A host that could not fetch release 7 so often. */
  async function afterFailedFetches(count: number): Promise<MemoryHost> {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    for (let failures = 0; failures < count; failures++) {
      host.fetchErrors.push(new PullError("MIRROR_STALLED", "slow"));
      await tick(host.tools, { insistence: "retry" });
    }
    expect(host.record?.state).toMatchObject({ name: "Failed", attempts: count });
    return host;
  }

  test("do not count as tries of its switch: the world's fault is tried again", async () => {
    const host = await afterFailedFetches(6);
    host.nextSwitch("test 2", flakyMirror(host));
    await tick(host.tools, { insistence: "retry" });
    expect(host.record?.state).toMatchObject({ reason: { code: "HEALTH_MIRROR" }, undone: 1 });
    expect(host.record?.state).not.toHaveProperty("gaveUp");
  });

  test("do not have a system denied whose switch is cut off once", async () => {
    const host = await afterFailedFetches(6);
    host.nextSwitch("test 2", { exitCode: null });
    await tick(host.tools, { insistence: "retry" });
    expect(host.record).toMatchObject({
      state: { name: "Failed", reason: { code: "ACTIVATION_INTERRUPTED" } },
      denied: [],
    });
    expect(await tick(host.tools, { insistence: "retry" })).toMatchObject({ updated: true });
  });
});

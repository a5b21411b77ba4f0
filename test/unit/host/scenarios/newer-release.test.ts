import { describe, expect, test } from "vitest";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";
import { sampleHost } from "../../../support/sample-release.ts";

const PATIENT = { insistence: "patient" } as const;
const MINUTE_MS = 60_000;

/** A host whose fetches take so long, and what happens some time after it began. */
function slowHost(
  config: object,
  fetchMs: number,
  afterMs: number,
  then: (host: MemoryHost) => void,
) {
  const host = new MemoryHost(config);
  host.publish({ sequence: 7, system: "2" });
  host.fetchMs = fetchMs;
  void host.time.sleep(afterMs).then(() => {
    then(host);
  });
  return host;
}

describe("while a release is fetched", () => {
  const poll = { interval: "1m" };

  test("a newer one ends the fetch and takes its place", async () => {
    const host = slowHost({ poll }, 10 * MINUTE_MS, MINUTE_MS / 2, (it) => {
      it.publish({ sequence: 8, system: "3" });
    });
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome).toMatchObject({ updated: true, release: { sequence: 8 } });
    expect(host.takeCalls().slice(0, 9)).toEqual([
      "[Candidate]",
      "[Fetching]",
      "hold pending 2",
      "fetch 2",
      "[Candidate]",
      "[Fetching]",
      "hold pending 3",
      "fetch 3",
      "fetched release 8",
    ]);
    expect(host.logged).toContain("info: release 7 is not fetched any further");
    expect(host.events).not.toContain("AttemptFailed");
    expect(host.record?.trust).toMatchObject([{ sequence: 8 }]);
    // A minute until the news, and the whole of the second fetch.
    expect(host.time.steadyMs()).toBe(11 * MINUTE_MS + 1_000);
  });

  test("the same system by another number goes on", async () => {
    const host = slowHost({ poll }, 10 * MINUTE_MS, MINUTE_MS / 2, (it) => {
      it.publish({ sequence: 8, system: "2" });
    });
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      updated: true,
      release: { sequence: 8 },
    });
    expect(host.time.steadyMs()).toBe(20 * MINUTE_MS + 1_000);
    expect(host.logged).toContain("info: release 7 is not activated: release 8 is newer");
  });

  test("a release without this host ends the fetch", async () => {
    const host = slowHost({ poll }, 10 * MINUTE_MS, MINUTE_MS / 2, (it) => {
      it.publish({ sequence: 8, system: "2", hosts: { db1: sampleHost() } });
    });
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome).toMatchObject({ release: null, error: { code: "HOST_NOT_IN_RELEASE" } });
    expect(host.record?.state).toEqual({ name: "Idle" });
    expect(host.time.steadyMs()).toBe(MINUTE_MS);
  });

  test("mirrors that go away do not end it", async () => {
    const host = slowHost({ poll }, 10 * MINUTE_MS, MINUTE_MS / 2, (it) => {
      const [mirror] = it.mirrors;
      if (mirror) mirror.down = "MIRROR_UNREACHABLE";
    });
    const outcome = await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toContain("fetched release 7");
    expect(host.logged).toContain(
      "warn: MIRROR_UNREACHABLE: asked again: https://a.example.org/: https://a.example.org/: MIRROR_UNREACHABLE",
    );
    // What cannot read a release is not healthy, and is not to blame.
    expect(outcome.error?.code).toBe("HEALTH_MIRROR");
  });

  test("a hold ends it, a closed window does not", async () => {
    const held = slowHost({ poll }, 10 * MINUTE_MS, MINUTE_MS / 2, (it) => {
      it.hold = {
        kind: "held",
        hold: { at: it.time.now().toISOString(), until: null, reason: null },
      };
    });
    expect(await tick(held.tools, PATIENT)).toMatchObject({ decision: { kind: "waiting" } });
    expect(held.takeCalls()).not.toContain("fetched release 7");

    const windows = [{ cron: "0 0 * * *", duration: "5m" }];
    const late = slowHost(
      { poll, maintenance: { windows, jitter: "0s" } },
      10 * MINUTE_MS,
      0,
      () => undefined,
    );
    expect(await tick(late.tools, PATIENT)).toMatchObject({
      ...{ updated: false, decision: { kind: "waiting" } },
      record: { state: { name: "Imported" } },
    });
    expect(late.takeCalls()).toContain("fetched release 7");
  });

  test("mirrors are asked every 15 minutes if polls go by a calendar, and every 10 s at most", async () => {
    const reads = async (settings: object, fetchMs: number): Promise<number> => {
      const host = slowHost({ poll: settings }, fetchMs, 0, () => undefined);
      await tick(host.tools, PATIENT);
      return host.mirrors[0]?.reads.length ?? 0;
    };
    // The poll, the look after the fetch, and the health gate.
    expect(await reads({ cron: "0 4 * * *" }, 44 * MINUTE_MS)).toBe(3 + 2);
    expect(await reads({ interval: "1s" }, 55_000)).toBe(3 + 5);
  });

  test("a stop ends the fetch, and it is resumed", async () => {
    const stop = new AbortController();
    const host = slowHost({ poll }, 10 * MINUTE_MS, 90_000, () => {
      stop.abort();
    });
    const { error, updated } = await tick(host.tools, { ...PATIENT, signal: stop.signal });
    expect([error?.code, updated]).toEqual(["INTERRUPTED", false]);
    expect(host.record?.state).toMatchObject({ name: "Fetching", attempts: 0 });
    host.takeCalls();
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
    // It is under way: nothing is accepted again.
    expect(host.takeCalls().slice(0, 3)).toEqual([
      "hold pending 2",
      "fetch 2",
      "fetched release 7",
    ]);
  });

  test("only so many newer ones are followed in one poll", async () => {
    const host = new MemoryHost({ poll });
    host.publish({ sequence: 7, system: "2" });
    host.fetchMs = 10 * MINUTE_MS;
    let sequence = 7;
    const publishOn = async (): Promise<void> => {
      while (sequence < 20) {
        await host.time.sleep(MINUTE_MS);
        sequence += 1;
        host.publish({ sequence, system: String(sequence) });
      }
    };
    const publishing = publishOn();
    const { error, updated } = await tick(host.tools, PATIENT);
    expect([error?.code, updated]).toEqual(["INTERRUPTED", false]);
    expect(host.takeCalls().filter((call) => call.startsWith("fetch "))).toHaveLength(4);
    await publishing;
  });
});

describe("once it is fetched", () => {
  test("a newer release takes its place", async () => {
    const host = slowHost({ poll: { interval: "1h" } }, MINUTE_MS, MINUTE_MS / 2, (it) => {
      it.publish({ sequence: 8, system: "3" });
    });
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      updated: true,
      release: { sequence: 8 },
      verdicts: [{ sequence: 8, unchanged: false }],
    });
    expect(host.running).toBe(system("3"));
    expect(host.logged).toContain("info: release 7 is not activated: release 8 is newer");
    expect(host.takeCalls()).not.toContain("test 2");
  });

  test("it is not activated after its expiry, if no mirror has another", async () => {
    const host = slowHost({ poll: { interval: "1h" } }, MINUTE_MS, MINUTE_MS / 2, (it) => {
      it.time.set("2026-02-28T12:00:00.000Z");
      const [mirror] = it.mirrors;
      if (mirror) mirror.down = "MIRROR_UNREACHABLE";
    });
    const { error, updated } = await tick(host.tools, PATIENT);
    expect([error?.code, updated]).toEqual(["MIRROR_STALE", false]);
    expect(host.takeCalls()).not.toContain("test 2");
  });

  test("and waits, it is activated later without another fetch", async () => {
    const windows = [{ cron: "0 2 * * *", duration: "2h" }];
    const host = new MemoryHost({ maintenance: { windows, jitter: "0s" } });
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    expect(host.record?.state.name).toBe("Imported");
    host.time.set("2026-02-01T02:00:00.000Z");
    host.takeCalls();
    const reads = host.mirrors[0]?.reads.length ?? 0;
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
    expect(host.takeCalls()[0]).toBe("hold previous-profile 1");
    // The poll and the health gate: what was found a moment ago is not asked for again.
    expect(host.mirrors[0]?.reads.length).toBe(reads + 2);
  });

  test("and lost, it is fetched again", async () => {
    const windows = [{ cron: "0 2 * * *", duration: "2h" }];
    const host = new MemoryHost({ maintenance: { windows, jitter: "0s" } });
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    host.valid.delete(system("2"));
    host.takeCalls();
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toEqual([
      "[Candidate]",
      "[Fetching]",
      "hold pending 2",
      "fetch 2",
      "fetched release 7",
      "[Imported]",
    ]);
  });

  test("and held, it stays; another system that has to wait takes its place at once", async () => {
    const windows = [{ cron: "0 2 * * *", duration: "2h" }];
    const host = new MemoryHost({ maintenance: { windows, jitter: "0s" } });
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    host.hold = { kind: "damaged", why: "torn" };
    await tick(host.tools, PATIENT);
    expect(host.record?.state).toMatchObject({ name: "Imported", release: { sequence: 7 } });
    host.publish({ sequence: 8, system: "3" });
    await tick(host.tools, PATIENT);
    expect(host.record?.state).toEqual({ name: "Idle" });
    expect(host.history).toContainEqual(
      expect.objectContaining({
        event: "ReleaseWithdrawn",
        message: "release 8 takes its place, and waits",
      }),
    );
  });
});

import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { sampleHost } from "../../../support/sample-release.ts";

const PATIENT = { insistence: "patient" } as const;
const A = "https://a.example.org/";
const B = "https://b.example.org/";
const STICK = "file:///mnt/stick";

/** A host with two mirrors. */
function hostOfTwo(config: object = {}) {
  const host = new MemoryHost({ mirrors: [A, B], ...config });
  const [a, b] = host.mirrors;
  if (!a || !b) throw new Error("expected two mirrors");
  return { host, a, b };
}

describe("a poll", () => {
  test("of mirrors that are all down leaves the host as it is, and is told", async () => {
    const { host, a, b } = hostOfTwo();
    a.down = "MIRROR_UNREACHABLE";
    b.down = "MIRROR_TLS";
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome).toMatchObject({
      ...{ release: null, decision: null, updated: false },
      error: { code: "MIRROR_UNREACHABLE", message: `${A}: MIRROR_UNREACHABLE` },
    });
    expect(outcome.verdicts).toEqual([
      {
        mirror: A,
        code: "MIRROR_UNREACHABLE",
        message: `${A}: MIRROR_UNREACHABLE`,
        unchanged: false,
      },
      { mirror: B, code: "MIRROR_TLS", message: `${B}: MIRROR_TLS`, unchanged: false },
    ]);
    expect([host.takeCalls(), host.history]).toEqual([[], []]);
    expect(host.files.get("poll.json")).toMatchObject({
      ...{ decision: null, release: null, error: { code: "MIRROR_UNREACHABLE" } },
    });
    expect(host.files.get("counters.json")).toEqual({ polls: 1, pollFailures: 1, updates: 0 });
  });

  test("takes the newest release, whichever mirror has it", async () => {
    const { host, a, b } = hostOfTwo();
    host.publish({ sequence: 7, system: "2" }, a);
    host.publish({ sequence: 8, system: "3" }, b);
    expect(await tick(host.tools, PATIENT)).toMatchObject({ release: { sequence: 8 } });
    host.publish({ sequence: 9, system: "4" }, a);
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      release: { sequence: 9 },
      verdicts: [{ sequence: 9 }, { sequence: 8, unchanged: true }],
    });
  });

  test("takes the first mirror's word among equals", async () => {
    const { host, a, b } = hostOfTwo();
    host.publish({ sequence: 7, system: "2" }, a);
    host.publish({ sequence: 7, system: "3" }, b);
    expect(await tick(host.tools, PATIENT)).toMatchObject({ release: { toplevel: system("2") } });
  });

  test("is not hindered by a mirror that lies", async () => {
    const { host, a, b } = hostOfTwo();
    a.put("{}");
    host.publish({ sequence: 7, system: "2" }, b);
    const { release, verdicts, error } = await tick(host.tools, PATIENT);
    expect([release?.sequence, error]).toEqual([7, null]);
    expect(verdicts[0]).toMatchObject({ mirror: A, code: "ENVELOPE_INVALID", unchanged: false });
  });

  test("does not wait for a slow mirror once another one has news", async () => {
    const { host, a, b } = hostOfTwo({ limits: { stallTimeout: "30s" } });
    a.latencyMs = Infinity;
    host.publish({ sequence: 7, system: "2" }, b);
    const { updated, verdicts } = await tick(host.tools, PATIENT);
    expect(updated).toBe(true);
    expect(verdicts[0]).toEqual({
      ...{ mirror: A, code: "MIRROR_SLOW", unchanged: false },
      message: `${A}: the others had answered long before, and it was not waited for`,
    });
    expect(host.history[0]).toMatchObject({ at: "2026-02-01T00:00:30.000Z" });
  });

  test("waits long for a slow mirror if there is no news", async () => {
    const { host, a } = hostOfTwo();
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    const began = host.time.steadyMs();
    a.latencyMs = Infinity;
    const { verdicts } = await tick(host.tools, PATIENT);
    expect(verdicts.map(({ code }) => code)).toEqual(["MIRROR_SLOW", undefined]);
    expect(host.time.steadyMs() - began).toBe(15 * 60_000);
    a.latencyMs = 5 * 60_000;
    expect((await tick(host.tools, PATIENT)).verdicts.map(({ code }) => code)).toEqual([
      undefined,
      undefined,
    ]);
  });

  test("before an activation does not wait long for a mirror that hangs", async () => {
    const { host, a } = hostOfTwo({ limits: { stallTimeout: "30s" } });
    host.publish({ sequence: 7, system: "2" });
    // It answers the poll, and hangs once the release was fetched.
    host.fetchMs = 1_000;
    void host.time.sleep(500).then(() => {
      a.latencyMs = Infinity;
    });
    const { updated } = await tick(host.tools, PATIENT);
    expect(updated).toBe(true);
    // The look before the activation, and no time at all in the health gate.
    expect(host.time.steadyMs()).toBeLessThan(60_000);
  });

  test("of a stick that is elsewhere is explained by the other mirrors", async () => {
    const host = new MemoryHost({ mirrors: [STICK, A] });
    const [stick, web] = host.mirrors;
    if (!stick || !web) throw new Error("expected two mirrors");
    stick.down = "MIRROR_ABSENT";
    web.down = "MIRROR_STATUS";
    expect((await tick(host.tools, PATIENT)).error?.code).toBe("MIRROR_STATUS");
    web.down = "MIRROR_ABSENT";
    expect((await tick(host.tools, PATIENT)).error?.message).toBe(`${STICK}: MIRROR_ABSENT`);
  });

  test("asks for what changed, and forgets what it may not believe", async () => {
    const host = new MemoryHost();
    const [mirror] = host.mirrors;
    host.publish({ sequence: 7, system: "1" });
    await tick(host.tools, PATIENT);
    await tick(host.tools, PATIENT);
    expect(mirror?.reads).toEqual([undefined, { etag: '"1"' }]);
    // Out of reach: the next request is conditional again.
    if (mirror) mirror.down = "MIRROR_STALLED";
    await tick(host.tools, PATIENT);
    expect(host.savedManifests.size).toBe(1);
    if (mirror) mirror.down = null;
    // A replay of an older release is no longer compared with.
    host.publish({ sequence: 6, system: "1" });
    expect((await tick(host.tools, PATIENT)).error?.code).toBe("SEQUENCE_REPLAYED");
    expect(host.savedManifests.size).toBe(0);
    await tick(host.tools, PATIENT);
    expect(mirror?.reads.slice(2)).toEqual([{ etag: '"1"' }, { etag: '"1"' }, undefined]);
  });

  test("keeps nothing of a mirror without validators", async () => {
    const host = new MemoryHost();
    const [mirror] = host.mirrors;
    if (mirror) mirror.validates = false;
    host.publish({ sequence: 7, system: "1" });
    await tick(host.tools, PATIENT);
    expect(host.savedManifests.size).toBe(0);
  });

  test("does not believe in a not-modified that nobody asked for", async () => {
    const host = new MemoryHost();
    const tools = {
      ...host.tools,
      mirrors: [
        {
          ...host.tools.mirrors[0]!,
          address: A,
          readManifest: async () => ({ kind: "unchanged" as const }),
        },
      ],
    };
    const { error } = await tick(tools, PATIENT);
    expect(error).toMatchObject({ code: "MIRROR_STATUS" });
    expect(error?.message).toBe(`${A}: "not modified" without being asked`);
  });

  test("of a new epoch says so", async () => {
    const host = new MemoryHost();
    const statement = { number: 2, reason: "lost the key" };
    host.publish({ sequence: 1, system: "1", epoch: statement });
    expect((await tick(host.tools, PATIENT)).verdicts).toMatchObject([{ sequence: 1, epoch: 2 }]);
  });

  test("that is stopped throws", async () => {
    const { host } = hostOfTwo();
    host.publish({ sequence: 7, system: "2" });
    const stop = AbortSignal.abort();
    const error = await rejectionOf(tick(host.tools, { ...PATIENT, signal: stop }));
    expect([error.code, error.message]).toEqual(["INTERRUPTED", "stopped while polling"]);
    expect([...host.locked]).toEqual([]);
  });
});

describe("a release", () => {
  test("that names other hosts is nothing for this one", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2", hosts: { db1: sampleHost() } });
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      ...{ release: null, decision: null, error: { code: "HOST_NOT_IN_RELEASE" } },
      // It was accepted all the same: no mirror can take it back.
      record: { trust: [{ sequence: 7 }] },
    });
    expect(host.events).toEqual(["ManifestAccepted"]);
  });

  test("that no longer names the host ends what was begun", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.fault("fetch 2", "MIRROR_STALLED");
    await tick(host.tools, PATIENT);
    expect(host.record?.state.name).toBe("Failed");
    host.publish({ sequence: 8, system: "2", hosts: { db1: sampleHost() } });
    host.takeCalls();
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toEqual([
      "[Idle]",
      "disarm boot deadline",
      "release pending",
      "abandon fetch",
    ]);
    expect(host.history.at(-1)).toMatchObject({ event: "ReleaseWithdrawn", sequence: 7 });
  });

  test("is kept in mind while mirrors are down", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.fault("fetch 2", "MIRROR_STALLED");
    await tick(host.tools, PATIENT);
    const [mirror] = host.mirrors;
    if (mirror) mirror.down = "MIRROR_UNREACHABLE";
    await tick(host.tools, PATIENT);
    expect(host.record?.state).toMatchObject({ name: "Failed", release: { sequence: 7 } });
  });

  test("for another machine is refused", async () => {
    const host = new MemoryHost();
    host.machineId = "a".repeat(64);
    host.publish({ sequence: 7, system: "2", entry: { machineId: "b".repeat(64) } });
    expect((await tick(host.tools, PATIENT)).error?.code).toBe("MACHINE_MISMATCH");
  });

  test.each(["command", "http"] as const)(
    "with a check of kind %s, where the settings allow no commands",
    async (kind) => {
      const host = new MemoryHost({ health: { releaseCommands: false } });
      const common = { name: "own\nwebsite", timeout: "1s" };
      const check =
        kind === "command"
          ? { ...common, kind, command: ["/bin/sh", "-c", "id"] }
          : { ...common, kind, url: "http://localhost/", status: 200 };
      const entry = { activation: { checks: [check] } };
      host.publish({ sequence: 7, system: "2", entry });
      const { error } = await tick(host.tools, PATIENT);
      if (kind === "http") {
        expect(error).toBeNull();
        return;
      }
      expect(error?.code).toBe("RELEASE_COMMANDS");
      expect(error?.message).toContain('found 1: "own\\nwebsite"');
      expect(error?.message).toContain("health.releaseCommands");
      expect(host.record?.state.name ?? "Idle").toBe("Idle");
    },
  );

  test("behind a barrier comes after it, in the settings' mode", async () => {
    const host = new MemoryHost({ activation: { mode: "test" } });
    host.publish({ sequence: 7, system: "1" });
    await tick(host.tools, PATIENT);
    const { archive, closureSize } = sampleHost();
    const stage = {
      ...{ sequence: 8, digest: "8".repeat(64), toplevel: system("2"), archive, closureSize },
      activation: { mode: "switch" as const },
    };
    host.publish({
      sequence: 9,
      system: "3",
      barrier: { sequence: 8 },
      entry: { through: [stage] },
    });
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      ...{ updated: true, release: { sequence: 8, mode: "test" }, next: { sequence: 9 } },
      record: { committed: { sequence: 8, toplevel: system("2") } },
    });
    const last = await tick(host.tools, PATIENT);
    expect(last).toMatchObject({ updated: true, release: { sequence: 9 } });
    expect(last.next).toBeUndefined();
  });
});

describe("a release behind a barrier that brings commands", () => {
  test("is refused where the settings allow none", async () => {
    const host = new MemoryHost({ health: { releaseCommands: false } });
    const { archive, closureSize } = sampleHost();
    const check = { kind: "command" as const, name: "own", command: ["/bin/id"], timeout: "1s" };
    const stage = {
      ...{ sequence: 8, digest: "8".repeat(64), toplevel: system("2"), archive, closureSize },
      activation: { mode: "switch" as const, checks: [check] },
    };
    host.publish({
      sequence: 9,
      system: "3",
      barrier: { sequence: 8 },
      entry: { through: [stage] },
    });
    const { error, release } = await tick(host.tools, PATIENT);
    expect(error).toMatchObject({ code: "RELEASE_COMMANDS" });
    expect(error?.message).toContain("release 8");
    expect(release).toBeNull();
  });
});

describe("a release behind a barrier that the host is already", () => {
  test("is remembered without going through the barrier", async () => {
    const host = new MemoryHost();
    const { archive, closureSize } = sampleHost();
    const stage = {
      ...{ sequence: 8, digest: "8".repeat(64), toplevel: system("2"), archive, closureSize },
      activation: { mode: "switch" as const },
    };
    const barrier = { sequence: 8 };
    host.publish({ sequence: 9, system: "1", barrier, entry: { through: [stage] } });
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      ...{ decision: { kind: "adopt" }, release: { sequence: 9 }, updated: false },
      record: { committed: { sequence: 9, toplevel: system("1") } },
    });
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      ...{ decision: { kind: "active" }, release: { sequence: 9 } },
    });
  });
});

describe("the report of a poll", () => {
  test("keeps how each mirror served archives, in the order of the settings", async () => {
    const { host } = hostOfTwo();
    host.files.set("poll.json", {
      ...{ at: "2026-01-01T00:00:00.000Z", mirrors: [], waits: [] },
      ...{ decision: null, release: null, error: null },
      archives: [
        { mirror: "https://gone.example.org/", at: "2026-01-01T00:00:00.000Z" },
        { mirror: B, at: "2026-01-01T00:00:00.000Z" },
        { mirror: A, at: "2026-01-01T00:00:00.000Z", code: "MIRROR_TLS", message: "old" },
      ],
    });
    host.publish({ sequence: 7, system: "2" });
    host.fetchErrors.push(null);
    await tick(host.tools, PATIENT);
    expect(host.files.get("poll.json")).toMatchObject({
      archives: [
        { mirror: A, at: "2026-02-01T00:00:00.000Z" },
        { mirror: B, at: "2026-01-01T00:00:00.000Z" },
      ],
    });
  });

  test("has the error of an archive that was not served", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.fetchErrors.push(new PullError("ARCHIVE_CORRUPT", "not what was signed"));
    await tick(host.tools, PATIENT);
    expect(host.files.get("poll.json")).toMatchObject({
      ...{ decision: "update", release: { sequence: 7 }, error: { code: "ARCHIVE_CORRUPT" } },
      archives: [{ mirror: A, code: "ARCHIVE_CORRUPT", message: "not what was signed" }],
    });
  });

  test("is written of a wait once in the history, and again if it is another one", async () => {
    const host = new MemoryHost({
      maintenance: { windows: [{ cron: "0 2 * * *", duration: "2h" }], jitter: "0s" },
    });
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    await tick(host.tools, PATIENT);
    const waits = host.history.filter(({ event }) => event === "ReleaseWaits");
    expect(waits).toEqual([
      {
        ...{ at: "2026-02-01T00:00:00.000Z", event: "ReleaseWaits", state: "Imported" },
        ...{ sequence: 7, toplevel: system("2"), mode: "switch", code: "WINDOW_CLOSED" },
        message: "the maintenance window opens at 2026-02-01T02:00:00.000Z",
      },
    ]);
    expect(host.files.get("poll.json")).toMatchObject({
      decision: "waiting",
      release: { sequence: 7 },
      waits: [{ reason: "WINDOW_CLOSED" }],
    });
    host.hold = { kind: "damaged", why: "torn" };
    await tick(host.tools, PATIENT);
    const last = host.history.at(-1);
    expect(last).toMatchObject({ event: "ReleaseWaits", code: "HELD" });
    expect(last?.message).toContain("; the maintenance window opens");
    expect(host.logged.at(-1)).toBe("error: STATE_CORRUPT: hold: torn; this host counts as held");
  });
});

import { describe, expect, test } from "vitest";
import { BUILD } from "../../../../agent/core/build.ts";
import { PullError } from "../../../../agent/core/errors.ts";
import { makeReport, signedReport } from "../../../../agent/host/report/host-report.ts";
import { readStatus } from "../../../../agent/host/report/host-status.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";
import { testKey } from "../../../support/test-key.ts";

const PATIENT = { insistence: "patient" } as const;
const START = "2026-02-01T00:00:00.000Z";

async function updatedHost(config: object = {}): Promise<MemoryHost> {
  const host = new MemoryHost(config);
  host.publish({ sequence: 7, system: "2" });
  await tick(host.tools, PATIENT);
  return host;
}

describe("the report of a host", () => {
  test("that is new says what runs there, and nothing of releases", async () => {
    const host = new MemoryHost();
    host.machineId = "a".repeat(64);
    expect(await makeReport(host.tools)).toEqual({
      ...{ formatVersion: 1, hostname: "web1", machineId: "a".repeat(64), at: START },
      ...{ channel: "stable", release: null, accepted: null, state: "Idle" },
      ...{ code: null, message: null },
      ...{ profile: system("1"), running: system("1"), booted: system("1") },
      agentVersion: BUILD.version,
      ...{ features: [], platform: "x86_64-linux" },
      disk: { free: 2_000, total: 10_000 },
    });
  });

  test("that follows a release says which, and when it was polled for", async () => {
    const host = await updatedHost();
    const { at, digest } = host.record?.committed ?? {};
    expect(await makeReport(host.tools)).toMatchObject({
      release: {
        ...{ sequence: 7, digest, toplevel: system("2"), rebootNeeded: false, committedAt: at },
      },
      accepted: { epoch: 0, sequence: 7, digest },
      ...{ profile: system("2"), running: system("2"), booted: system("1"), code: null },
      lastPoll: { at, decision: "applied", sequence: 7 },
    });
    expect(await makeReport(host.tools)).not.toHaveProperty("drift");
    host.running = system("9");
    expect((await makeReport(host.tools)).drift).toMatchObject({ found: system("9") });
  });

  test("in a new epoch names it", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 1, system: "1", epoch: { number: 2, reason: "lost the key" } });
    await tick(host.tools, PATIENT);
    expect((await makeReport(host.tools)).accepted).toMatchObject({ epoch: 2, sequence: 1 });
  });

  test("whose poll failed says why", async () => {
    const host = await updatedHost();
    for (const mirror of host.mirrors) mirror.down = "MIRROR_TLS";
    await tick(host.tools, PATIENT);
    expect(await makeReport(host.tools)).toMatchObject({
      ...{ code: "MIRROR_TLS", message: "https://a.example.org/: MIRROR_TLS" },
      lastPoll: { decision: null, sequence: null },
    });
  });

  test("whose attempt failed says why, whatever the poll says", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.fault("fetch 2", "MIRROR_STALLED", "x".repeat(600));
    await tick(host.tools, PATIENT);
    for (const mirror of host.mirrors) mirror.down = "MIRROR_TLS";
    await tick(host.tools, PATIENT);
    expect(await makeReport(host.tools)).toMatchObject({
      ...{ state: "Failed", code: "MIRROR_STALLED", message: "x".repeat(500) },
      failure: { sequence: 7, code: "MIRROR_STALLED" },
    });
  });

  test("that denies a release says why, however often it is found", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("switch 2", { exitCode: 2 });
    host.nextSwitch("test 2", { exitCode: 2 });
    await tick(host.tools, PATIENT);
    const [denial] = host.record?.denied ?? [];
    if (!denial) throw new Error("expected a denial");
    await tick(host.tools, PATIENT);
    const why = `${denial.reason.code}: ${denial.reason.message}`;
    expect(await makeReport(host.tools)).toMatchObject({
      code: "RELEASE_DENIED",
      message: `release 7 is not tried again here: ${why}`.slice(0, 500),
      failure: { code: denial.reason.code },
    });
    // Its number alone is no way to lose the reason: the same system may come again.
    host.publish({ sequence: 8, system: "2" });
    await tick(host.tools, PATIENT);
    expect((await makeReport(host.tools)).message).toBe(
      `release 8 is not tried again here: ${why}`.slice(0, 500),
    );
    if (host.record) host.record = { ...host.record, denied: [] };
    expect((await makeReport(host.tools)).message).toBe(
      "release 8 is not tried again here: it failed before",
    );
    const poll = { mirrors: [], archives: [], waits: [], error: null, release: null };
    host.files.set("poll.json", { at: START, decision: "denied", ...poll });
    expect((await makeReport(host.tools)).message).toBe(
      "release ? is not tried again here: it failed before",
    );
  });

  test("that waits says what for", async () => {
    const host = new MemoryHost();
    host.hold = { kind: "held", hold: { at: START, until: null, lasts: 60_000, reason: "audit" } };
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    const report = await makeReport(host.tools);
    expect(report.hold).toEqual({ at: START, until: null, reason: "audit" });
    expect(report.waits).toEqual([
      { reason: "HELD", message: expect.stringContaining("audit"), until: null },
    ]);
    expect(report.lastPoll).toMatchObject({ decision: "waiting", sequence: 7 });
  });

  test("keeps to its bounds, whatever is waited for", async () => {
    const host = new MemoryHost();
    const wait = {
      ...{ reason: "HELD", message: "x".repeat(2_000), until: null },
      ...{ binds: "everyone", allowsFetch: false },
    };
    host.files.set("poll.json", {
      ...{ at: START, decision: "waiting", error: null, release: null },
      ...{ mirrors: [], archives: [], waits: Array.from({ length: 30 }, () => wait) },
    });
    const { waits } = await makeReport(host.tools);
    expect(waits).toHaveLength(20);
    expect(new Set(waits?.map(({ message }) => message.length))).toEqual(new Set([500]));
  });

  test("whose hold or record is damaged says that before anything else", async () => {
    const host = await updatedHost();
    for (const mirror of host.mirrors) mirror.down = "MIRROR_TLS";
    await tick(host.tools, PATIENT);
    host.hold = { kind: "damaged", why: "torn" };
    expect(await makeReport(host.tools)).toMatchObject({
      ...{ code: "STATE_CORRUPT", message: "hold: torn; the host counts as held" },
      hold: { at: null, until: null, reason: null },
    });
    host.stateLoss = new PullError("STATE_LOST", "gone");
    expect(await makeReport(host.tools)).toMatchObject({
      ...{ code: "STATE_LOST", message: "gone", release: null, accepted: null },
    });
    expect((await readStatus(host.tools)).alarms).toEqual([
      { code: "STATE_LOST", message: "gone" },
      { code: "STATE_CORRUPT", message: "hold: torn; the host counts as held" },
    ]);
  });

  test("that has to reboot says for what, and how often it asked", async () => {
    const host = new MemoryHost({ reboot: { policy: "never" } });
    host.kernels.set(system("2"), "linux 6");
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    const report = await makeReport(host.tools);
    expect(report.release).toMatchObject({ rebootNeeded: true });
    expect(report.pendingReboot).toEqual({
      ...{ sequence: 7, policy: "never", requested: 0 },
      message: "release 7 is complete only after a reboot",
    });
    const { pendingReboot } = host.record ?? {};
    if (!host.record || !pendingReboot) throw new Error("expected a pending reboot");
    host.record = { ...host.record, pendingReboot: { ...pendingReboot, wayBack: true } };
    expect((await makeReport(host.tools)).pendingReboot?.message).toBe(
      "the way back from release 7 is complete only after a reboot",
    );
  });

  test("is made without the disk if that cannot be asked", async () => {
    const host = new MemoryHost();
    const broken = { freeSpace: () => Promise.reject(new Error("EIO")) };
    expect(await makeReport({ ...host.tools, disk: broken })).not.toHaveProperty("disk");
    const sizeless = { freeSpace: async () => ({ free: 1, fileSystem: "1" }) };
    expect(await makeReport({ ...host.tools, disk: sizeless })).not.toHaveProperty("disk");
  });

  test("carries the key that signs it", async () => {
    const host = new MemoryHost();
    const { text } = testKey("host-web1").publicKey;
    const { publicKey, report } = await signedReport(host.tools);
    expect([publicKey, report.publicKey]).toEqual([text, text]);
  });
});

describe("the status of a host", () => {
  test("says what it is, and what was imported last", async () => {
    const host = await updatedHost();
    const status = await readStatus(host.tools);
    expect(status).toMatchObject({
      ...{ hostname: "web1", channel: "stable", machineId: null, alarms: [], drift: null },
      host: { profile: system("2"), running: system("2"), generation: 2 },
      lastPoll: { decision: "applied" },
      lastImport: { at: START, sequence: 7, toplevel: system("2") },
      record: { committed: { sequence: 7 } },
      bootLoader: { name: "loader" },
    });
    host.running = system("9");
    expect((await readStatus(host.tools)).drift).toMatchObject({ found: system("9") });
  });

  test("of a new host has nothing of that, and says what its boot loader cannot do", async () => {
    const host = new MemoryHost();
    const look = () => Promise.reject(new PullError("IO_FAILED", "no bootctl"));
    const bootLoader = { ...host.tools.bootLoader, look };
    expect(await readStatus({ ...host.tools, bootLoader })).toMatchObject({
      ...{ lastPoll: null, lastImport: null, drift: null },
      bootLoader: { name: null, cannotTry: "no bootctl" },
    });
  });
});

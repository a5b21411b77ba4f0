import { describe, expect, test } from "vitest";
import type { SwitchFacts } from "../../../../agent/core/update/switch-output.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";
import { rejectionOf } from "../../../support/failure.ts";

const PATIENT = { insistence: "patient" } as const;
const FAILS = { exitCode: 17 };
const REASON = "it ended with exit code 17";

/** A host that is stuck between system 2, which failed, and system 1, which does not come back. */
async function stuckHost(): Promise<MemoryHost> {
  const host = new MemoryHost();
  host.publish({ sequence: 7, system: "2" });
  host.nextSwitch("test 2", FAILS);
  host.nextSwitch("switch 1", FAILS, FAILS, FAILS);
  // What cannot be switched to is booted, and that cannot be had either.
  host.nextSwitch("boot 1", FAILS, FAILS, FAILS);
  await tick(host.tools, PATIENT);
  return host;
}

describe("a way back whose generation was deleted meanwhile", () => {
  test("gives the recorded system a generation of its own", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    // `nix-collect-garbage -d`: the profile has only the new system then.
    const meanwhile = (): void => {
      host.generations.delete(1);
    };
    host.nextSwitch("boot 2", { exitCode: 1, meanwhile });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ error: { code: "ACTIVATION_FAILED" } });
    expect(host.profile).toBe(system("1"));
    expect(host.bootDefault).toBe(system("1"));
    expect(host.record).toMatchObject({ state: { name: "Idle" } });
  });
});

describe("a release that fails", () => {
  test("is left, and denied", async () => {
    const host = new MemoryHost({ generations: { keep: 3 } });
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", { ...FAILS, lines: ["setting up /etc...", "boom"] });
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome).toMatchObject({ updated: false, error: { code: "ACTIVATION_FAILED" } });
    expect(host.takeCallsFrom("test 2")).toEqual([
      "test 2",
      "[RollingBack]",
      "switch 1",
      "[RolledBack]",
      "disarm deadline",
      "release previous-profile",
      "release previous-running",
      "disarm boot deadline",
      "release agent",
      "release pending",
      "abandon fetch",
      "[Idle]",
    ]);
    const at = "2026-02-01T00:00:00.000Z";
    const what = { sequence: 7, toplevel: system("2"), mode: "switch" };
    expect(host.history.slice(-3)).toEqual([
      {
        ...{ at, event: "ActivationRejected", state: "RollingBack", ...what },
        ...{ code: "ACTIVATION_FAILED", message: `switch-to-configuration test: ${REASON}` },
        lastLines: ["setting up /etc...", "boom"],
      },
      {
        ...{ at, event: "RollbackSucceeded", state: "RolledBack", ...what },
        lastLines: ["switch 1 ran"],
      },
      { at, event: "LeftoversRemoved", state: "Idle", ...what },
    ]);
    expect(host.record).toMatchObject({
      committed: null,
      denied: [{ toplevel: system("2"), sequence: 7, at }],
    });
    expect([host.running, host.profile, host.deadline]).toEqual([system("1"), system("1"), null]);
    expect([...host.roots]).toEqual([]);
    expect(host.logged.slice(-4)).toEqual([
      `error: ACTIVATION_FAILED: switch-to-configuration test: ${REASON}; going back`,
      "warn: going back: 1, switch",
      "info: switch-to-configuration switch",
      "warn: release 7 was rolled back",
    ]);

    const later = await tick(host.tools, PATIENT);
    expect(later).toMatchObject({ decision: { kind: "denied" }, error: null });
    expect(host.takeCalls()).toEqual([]);
  });

  test("in the middle of its commit takes the profile back, too", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("boot 2", { exitCode: 1 });
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome.error?.message).toContain(
      "switch-to-configuration boot: it ended with exit code 1",
    );
    const calls = host.takeCallsFrom("[Verifying]");
    expect(calls.slice(0, 8)).toEqual([
      "[Verifying]",
      "[Committing]",
      "set profile 2",
      "boot 2",
      "restore generation 1",
      "delete generation 2",
      "boot 1",
      "[RollingBack]",
    ]);
    expect(calls).toContain("switch 1");
    expect([host.profile, host.running]).toEqual([system("1"), system("1")]);
    expect(host.record?.denied).toMatchObject([{ toplevel: system("2") }]);
  });

  test("in a commit is not denied if the boot loader cannot be installed for any system", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("boot 2", { exitCode: 1 });
    host.nextSwitch("boot 1", { exitCode: 1 });
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome.error).toMatchObject({ code: "BOOT_LOADER_FAILED" });
    expect(outcome.error?.message).toContain("so did");
    expect(host.record).toMatchObject({ state: { name: "Failed" }, denied: [] });
    expect([host.profile, host.running]).toEqual([system("1"), system("1")]);
    // The place that it writes to is mended: the same release is followed.
    await host.time.sleep(86_400_000);
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({ committed: { toplevel: system("2") } });
  });

  test("on a host with a boot pending restores both systems", async () => {
    const host = new MemoryHost();
    host.running = system("0");
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("boot 2", { exitCode: 1 });
    await tick(host.tools, PATIENT);
    expect(host.takeCallsFrom("[RollingBack]")).toEqual(
      expect.arrayContaining(["boot 1", "test 0", "[RolledBack]"]),
    );
    expect([host.profile, host.running]).toEqual([system("1"), system("0")]);
  });

  test("on a host without a profile leaves none", async () => {
    const host = new MemoryHost();
    host.generation = null;
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("boot 2", { exitCode: 1 });
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toContain("restore generation null");
    expect([host.profile, host.running]).toEqual([null, system("1")]);
  });

  test("after its boot is left by another boot, which waits for nothing", async () => {
    const host = new MemoryHost({ reboot: { policy: "never" } });
    host.kernels.set(system("2"), "linux 6");
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    await tick(host.tools, PATIENT);
    host.boot();
    host.units = { failed: ["web.service"], restarts: new Map() };
    host.takeCalls();
    const outcome = await tick(host.tools, PATIENT);
    // The commit is taken back, and what went before it.
    expect(outcome.record).toMatchObject({
      committed: null,
      pendingReboot: { wayBack: true, bootId: "boot 2", requested: 1 },
      denied: [{ toplevel: system("2"), reason: { message: "units failed: web.service" } }],
    });
    expect(host.takeCalls()).toEqual([
      "[Verifying]",
      "[RollingBack]",
      "restore generation 1",
      "delete generation 2",
      "switch 1",
      "[RolledBack]",
      "disarm boot deadline",
      "release agent",
      "abandon fetch",
      "[Idle]",
      "reboot",
    ]);
  });

  test("after the boot of another kernel is left by a boot, although it was switched to", async () => {
    const host = new MemoryHost({ reboot: { policy: "never" } });
    host.kernels.set(system("2"), "linux 6");
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    host.boot();
    host.units = { failed: ["web.service"], restarts: new Map() };
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({ pendingReboot: { wayBack: true } });
    expect(host.takeCalls().at(-1)).toBe("reboot");
  });

  test("and whose live way back fails is left by a boot, whatever the policy", async () => {
    const host = new MemoryHost({ reboot: { policy: "never", grace: "0s" } });
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", FAILS);
    host.nextSwitch("switch 1", FAILS);
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({
      ...{ state: { name: "Idle" }, denied: [{ toplevel: system("2"), mode: "switch" }] },
      pendingReboot: { wayBack: true, requested: 1 },
    });
    const back = host.history.find(({ event }) => event === "RollbackSucceeded");
    expect(back?.message).toContain(`a boot leads back: ${system("1")} switch: ${REASON}`);
    expect(host.takeCalls().at(-1)).toBe("reboot");
  });

  test.each([
    ["never", { kind: "none" } as const],
    ["window", { kind: "none" } as const],
    [
      "now",
      {
        kind: "held",
        hold: { at: "2026-02-01T00:00:00.000Z", until: null, reason: null },
      } as const,
    ],
  ])("and whose way back asks for a reboot gets it: policy %s, hold %j", async (policy, hold) => {
    const maintenance = { windows: [{ cron: "0 3 * * 1", duration: "1h" }] };
    const host = new MemoryHost({ reboot: { policy, grace: "0s" }, maintenance });
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", {
      ...FAILS,
      meanwhile: () => {
        host.hold = hold;
      },
    });
    host.nextSwitch("switch 1", { exitCode: 100 });
    await tick(host.tools, { insistence: "retry" });
    expect(host.takeCalls().at(-1)).toBe("reboot");
    expect(host.forced).toBe(true);
  });

  test("and whose way back asks for a reboot leaves that pending", async () => {
    const host = new MemoryHost({ reboot: { policy: "now", grace: "1m" } });
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", FAILS);
    host.nextSwitch("switch 1", { exitCode: 100 });
    await tick(host.tools, PATIENT);
    expect(host.record?.pendingReboot).toMatchObject({
      wayBack: true,
      bootId: "boot 1",
      requested: 1,
    });
    expect(host.takeCalls().at(-1)).toBe("reboot");
    expect(host.logged.at(-1)).toBe("warn: rebooting for the way back from release 7 in 1m");
    host.boot();
    expect((await tick(host.tools, PATIENT)).record.pendingReboot).toBeNull();
  });

  test("is tried again if only circumstances were to blame", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", { exitCode: null });
    const outcome = await tick(host.tools, PATIENT);
    const message = "switch-to-configuration test: a signal ended it";
    expect(outcome.error).toMatchObject({ code: "ACTIVATION_INTERRUPTED", message });
    expect(host.record).toMatchObject({
      state: { name: "Failed", attempts: 1, retryAt: "2026-02-01T01:00:00.000Z" },
      denied: [],
    });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "backoff" } });
    host.time.advance(60 * 60_000);
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
  });
});

describe("a way back that fails", () => {
  test("stays, is told, and is tried again", async () => {
    const host = await stuckHost();
    expect(host.record?.state).toMatchObject({ name: "RollingBack", rollbackAttempts: 1 });
    expect(host.history.at(-1)).toMatchObject({
      ...{ event: "RollbackFailed", state: "RollingBack", lastLines: ["boot 1 ran"] },
      message: `${system("1")} boot: ${REASON}`,
    });
    const again = await tick(host.tools, PATIENT);
    expect(again).toMatchObject({
      ...{ release: null, decision: null, verdicts: [], updated: false },
      error: { code: "ROLLBACK_FAILED", message: `${system("1")} boot: ${REASON}` },
    });
    // The deadline's commands and the roots that hold the way back stay.
    expect(host.roots.get("previous-running")).toBe(system("1"));
    expect(host.deadline).not.toBeNull();
  });

  test("three times lets another release take its place", async () => {
    const host = await stuckHost();
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "3" });
    host.takeCalls();
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome).toMatchObject({ updated: true, error: null, release: { sequence: 8 } });
    expect(host.logged).toContain(
      `error: ROLLBACK_FAILED: 1 boot: ${REASON}; looking for a release that works instead`,
    );
    expect(host.takeCalls().slice(0, 3)).toEqual(["switch 1", "boot 1", "[Candidate]"]);
    expect(host.running).toBe(system("3"));
    expect(host.record).not.toHaveProperty("unfinishedWayBack");
  });

  test("is what a tick says if there is no other release", async () => {
    const host = await stuckHost();
    await tick(host.tools, PATIENT);
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome).toMatchObject({
      decision: { kind: "denied" },
      error: { code: "ROLLBACK_FAILED" },
      record: { state: { name: "RollingBack", rollbackAttempts: 3 } },
    });
  });

  test("goes on if the mirrors have the system that it goes back to", async () => {
    const host = await stuckHost();
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "1" });
    host.running = system("1");
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      decision: { kind: "adopt" },
      error: { code: "ROLLBACK_FAILED" },
      record: { state: { name: "RollingBack" } },
    });
    // Its switch succeeds now.
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      error: null,
      record: { state: { name: "Idle" }, committed: { sequence: 8, toplevel: system("1") } },
    });
  });

  test("is not left by a rollback by hand", async () => {
    const host = await stuckHost();
    expect((await rejectionOf(rollBackByHand(host.tools, 1))).code).toBe("ROLLBACK_FAILED");
    expect(host.record?.state).toMatchObject({ name: "RollingBack", rollbackAttempts: 2 });
    expect([...host.locked]).toEqual([]);
  });

  test("has the same release tried a few times, not with every poll", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    const often = <T>(what: T): T[] => Array.from({ length: 99 }, () => what);
    host.nextSwitch("test 2", ...often({ exitCode: null, moves: true }));
    host.nextSwitch("switch 1", ...often(FAILS));
    host.nextSwitch("boot 1", ...often(FAILS));
    const polls = 60;
    for (let poll = 0; poll < polls; poll++) {
      await host.time.sleep(300_000);
      await tick(host.tools, PATIENT);
    }
    const calls = host.takeCalls();
    expect(calls.filter((call) => call === "test 2")).toHaveLength(5);
    // The way back is still tried with every poll, and ends the waiting once it works.
    expect(calls.filter((call) => call === "switch 1").length).toBeGreaterThan(polls - 10);
    host.switches.clear();
    await tick(host.tools, PATIENT);
    expect([host.profile, host.running]).toEqual([system("1"), system("1")]);
  });

  test("a full disk in the middle of it is such a failure, and keeps its code", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("boot 2", { exitCode: null });
    host.fault("restore generation", "PROFILE_FAILED", "disk full");
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome.error).toMatchObject({ code: "PROFILE_FAILED", message: "disk full" });
    expect(host.history.at(-1)).toMatchObject({ event: "RollbackFailed", message: "disk full" });
  });

  test("units that fail in the old system do not count", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", FAILS);
    host.nextSwitch("switch 1", { exitCode: 4 });
    await tick(host.tools, PATIENT);
    expect(host.record?.state).toEqual({ name: "Idle" });
  });
});

describe("a system that was never proven", () => {
  const FOO: Partial<SwitchFacts> = {
    ...{ activationScriptFailed: true, begun: true },
    failedSnippets: [{ name: "foo", code: 1 }],
  };

  test("is not taken for the release while it is denied and a boot has to lead back", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2", mode: "test" });
    host.nextSwitch("test 2", { exitCode: 2, moves: true, facts: FOO });
    host.nextSwitch("test 1", { exitCode: 17 });
    await tick(host.tools, PATIENT);
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome.decision?.kind).toBe("denied");
    expect(host.record?.committed?.toplevel).not.toBe(system("2"));
    host.boot();
    await tick(host.tools, PATIENT);
    expect([host.running, host.profile]).toEqual([system("1"), system("1")]);
    expect(host.record?.pendingReboot).toBeNull();
  });

  test("is not gone back to, though it was the boot default", async () => {
    const host = new MemoryHost();
    host.cannotTry = "GRUB cannot write";
    host.kernels.set(system("2"), "linux 2");
    host.kernels.set(system("3"), "linux 3");
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "3", mode: "boot" });
    await tick(host.tools, PATIENT);
    host.boot();
    host.units = { failed: ["x.service"], restarts: new Map() };
    await tick(host.tools, PATIENT);
    host.boot();
    await tick(host.tools, PATIENT);
    expect([host.running, host.profile, host.bootDefault]).toEqual(
      Array.from({ length: 3 }, () => system("1")),
    );
  });

  test("is not what the next release leads back to, if a boot had to lead back from it", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", { exitCode: null, moves: true });
    host.nextSwitch("switch 1", { exitCode: 17 });
    await tick(host.tools, PATIENT);
    host.takeCalls();
    host.publish({ sequence: 8, system: "3" });
    host.nextSwitch("test 3", { exitCode: 17, moves: true });
    await tick(host.tools, PATIENT);
    expect(host.takeCalls().filter((call) => /^(test|switch) 2/.test(call))).toEqual([]);
  });

  test("what failed in the proven one is still known after a way back that only set the boot default", async () => {
    const host = new MemoryHost();
    host.failedInBoot = [{ name: "foo", code: 1 }];
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", { exitCode: 2, moves: true, facts: FOO });
    await tick(host.tools, PATIENT);
    expect(host.running).toBe(system("2"));
    host.publish({ sequence: 8, system: "3", mode: "boot" });
    host.nextSwitch("boot 3", { exitCode: 1 });
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 9, system: "4" });
    host.nextSwitch("test 4", { exitCode: 2, moves: true, facts: FOO });
    await tick(host.tools, PATIENT);
    expect(host.running).toBe(system("4"));
    expect(host.record?.denied.map(({ toplevel }) => toplevel)).not.toContain(system("4"));
  });
});

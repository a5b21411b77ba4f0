import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;
const HOUR_MS = 60 * 60_000;
const SICK = { failed: ["web.service"], restarts: new Map<string, number>() };

describe("a boot that is to leave a failed system, and does not come", () => {
  /** A host on which system 2 was cut off and could not be left live. */
  async function hostInTwo(): Promise<MemoryHost> {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2", mode: "test" });
    host.nextSwitch("test 2", { exitCode: null, moves: true });
    host.nextSwitch("test 1", { exitCode: 17 });
    await tick(host.tools, PATIENT);
    expect(host.running).toBe(system("2"));
    expect(host.record).toMatchObject({ pendingReboot: { wayBack: true }, denied: [] });
    return host;
  }

  test("leaves the system that ran before as the one to go back to", async () => {
    const host = await hostInTwo();
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "backoff" } });
    host.time.advance(2 * HOUR_MS);
    host.nextSwitch("test 2", { exitCode: 17 });
    await tick(host.tools, PATIENT);
    expect(host.events).toContain("ActivationRejected");
    expect(host.running).toBe(system("1"));
  });

  test.each([
    ["the same system", "2"],
    ["another one", "3"],
  ])("is owed no more once %s is proven live", async (_, name) => {
    const host = await hostInTwo();
    host.time.advance(2 * HOUR_MS);
    host.publish({ sequence: 8, system: name, mode: "test" });
    host.takeCalls();
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true, error: null });
    expect(host.record).toMatchObject({ committed: { sequence: 8 }, pendingReboot: null });
    expect(host.takeCalls()).not.toContain("reboot");
  });

  test("is still owed after a release that changes nothing", async () => {
    const host = await hostInTwo();
    host.publish({ sequence: 8, system: "3", mode: "dry-activate" });
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({ pendingReboot: { wayBack: true } });
  });

  test("does not make what failed in that system an old failure of the next one", async () => {
    const host = new MemoryHost();
    host.cannotTry = null;
    host.kernels.set(system("2"), "linux 2");
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    await tick(host.tools, PATIENT);
    host.boot();
    host.units = SICK;
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({ pendingReboot: { wayBack: true } });
    host.publish({ sequence: 8, system: "2", mode: "test" });
    expect((await tick(host.tools, PATIENT)).error).toMatchObject({
      code: "HEALTH_FAILED",
      message: "units failed: web.service",
    });
    expect(host.record).toMatchObject({ committed: null, pendingReboot: { wayBack: true } });
    host.boot();
    host.units = { failed: [], restarts: new Map() };
    await tick(host.tools, PATIENT);
    expect(host.running).toBe(system("1"));
    expect(host.record).toMatchObject({ pendingReboot: null });
  });
});

describe("a boot into a release that waits", () => {
  test.each([
    ["has become the boot default", "no"],
    ["is to be tried once", null],
  ])("is called off by the way back from another one, and not denied: it %s", async (_, why) => {
    const host = new MemoryHost({ reboot: { policy: "never" } });
    host.cannotTry = why;
    host.kernels.set(system("2"), "linux 2");
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({ pendingReboot: { wayBack: false } });
    host.publish({ sequence: 8, system: "3" });
    host.nextSwitch("test 3", { exitCode: 17 });
    await tick(host.tools, PATIENT);
    expect([host.profile, host.bootDefault, host.oneShot]).toEqual([
      system("1"),
      system("1"),
      null,
    ]);
    expect(host.record).toMatchObject({ committed: null, pendingReboot: null });
    host.boot();
    await tick(host.tools, PATIENT);
    expect(host.running).toBe(system("1"));
    expect(host.record?.denied).toMatchObject([{ toplevel: system("3") }]);
    // It may come again.
    host.publish({ sequence: 9, system: "2" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ error: null, updated: true });
  });
});

test("a boot of the system that is gone back to is still waited for", async () => {
  const host = new MemoryHost({ reboot: { policy: "never" } });
  host.kernels.set(system("2"), "linux 2");
  host.publish({ sequence: 7, system: "2" });
  await tick(host.tools, PATIENT);
  host.publish({ sequence: 8, system: "3" });
  host.nextSwitch("test 3", { exitCode: 17 });
  await tick(host.tools, PATIENT);
  expect([host.running, host.bootDefault]).toEqual([system("2"), system("2")]);
  expect(host.record).toMatchObject({
    committed: { sequence: 7 },
    pendingReboot: { wayBack: false, release: { sequence: 7 } },
  });
});

test("a way back whose units cannot be seen is complete all the same, and says so", async () => {
  const host = new MemoryHost();
  host.publish({ sequence: 7, system: "2" });
  host.nextSwitch("test 2", { exitCode: 17, moves: true });
  const services = {
    ...host.tools.services,
    activeUnits: async () => ["worker@3.service"],
    unitStates: () => Promise.reject(new PullError("TOOL_TIMEOUT", "systemctl took too long")),
  };
  await tick({ ...host.tools, services }, PATIENT);
  expect(host.record?.state.name).toBe("Idle");
  expect(host.running).toBe(system("1"));
  expect(host.history).toContainEqual(
    expect.objectContaining({
      event: "RollbackSucceeded",
      message: "units that were active before could not be restored: systemctl took too long",
    }),
  );
});

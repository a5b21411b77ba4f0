import { describe, expect, test } from "vitest";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";
import { waitingHost } from "../../../support/waiting-host.ts";

const PATIENT = { insistence: "patient" } as const;
const [ONE, TWO, X] = [system("1"), system("2"), system("9")] as const;

/** What a person does with `nixos-rebuild`: system 9 becomes the boot default, or runs as well. */
function rebuild(host: MemoryHost, action: "switch" | "boot"): void {
  const next = Math.max(...host.generations.keys()) + 1;
  host.generations.set(next, X);
  host.generation = next;
  host.bootDefault = X;
  if (action === "switch") host.running = X;
}

describe.each(["boot", "switch"] as const)("a boot without a trial, in mode %s", (mode) => {
  test.each(["boot", "switch"] as const)(
    "that starts what a person made by %s denies nothing, and is left to them",
    async (action) => {
      const host = await waitingHost("no loader", mode);
      rebuild(host, action);
      host.failedInBoot = [{ name: "theirs", code: 1 }];
      host.boot();
      await tick(host.tools, PATIENT);
      await tick(host.tools, PATIENT);
      expect(host.events).toContain("ChangedByHand");
      expect(host.record).toMatchObject({ denied: [], pendingReboot: null });
      expect([host.profile, host.running, host.bootDefault]).toEqual([X, X, X]);
    },
  );

  test("that a person went around in the boot menu is called off, and tried again later", async () => {
    const host = await waitingHost("no loader", mode);
    host.failedInBoot = [{ name: "theirs", code: 1 }];
    host.boot(ONE);
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({
      denied: [],
      state: { name: "Failed", undone: 1, reason: { code: "BOOT_NOT_TRIED" } },
    });
    expect([host.profile, host.running, host.bootDefault]).toEqual([ONE, ONE, ONE]);
  });
});

test("a boot of what a person made meanwhile says nothing of the system to be tried", async () => {
  const host = await waitingHost(null, "boot");
  rebuild(host, "boot");
  host.oneShot = null;
  host.boot();
  await tick(host.tools, PATIENT);
  expect(host.record?.denied).toEqual([]);
  expect([host.profile, host.running, host.bootDefault]).toEqual([X, X, X]);
});

test.each([
  ["Activating", "test 2"],
  ["Verifying", "check website"],
])("a boot default that a person chose in %s is left, once it was booted", async (state, at) => {
  const check = { name: "website", kind: "http", url: "http://localhost/" };
  const host = new MemoryHost({
    health: { settle: "1s", interval: "1s", timeout: "3s", checks: [check] },
  });
  host.publish({ sequence: 7, system: "2" });
  host.fault(at, "INTERRUPTED", "stopped");
  await tick(host.tools, PATIENT);
  expect(host.record?.state.name).toBe(state);
  rebuild(host, "boot");
  host.boot();
  await tick(host.tools, PATIENT);
  expect(host.record?.denied).toEqual([]);
  expect([host.profile, host.running, host.bootDefault]).toEqual([X, X, X]);
});

describe.each([
  ["a trial", null],
  ["no trial", "no loader"],
] as const)("a pending boot with %s", (_, cannotTry) => {
  test.each([
    ["boot", "boot"],
    ["boot", "switch"],
    ["switch", "boot"],
    ["switch", "switch"],
  ] as const)(
    "is called off, mode %s, if a person makes another system the boot default by %s",
    async (mode, action) => {
      const host = await waitingHost(cannotTry, mode);
      (host.settings.reboot as { policy: string }).policy = "now";
      rebuild(host, action);
      const runs = host.running;
      await tick(host.tools, PATIENT);
      await tick(host.tools, PATIENT);
      expect(host.takeCalls()).not.toContain("reboot");
      expect(host.record).toMatchObject({
        denied: [],
        pendingReboot: null,
        state: { name: "Failed", reason: { code: "CHANGED_BY_HAND" }, gaveUp: true },
      });
      expect([host.profile, host.running, host.oneShot]).toEqual([X, runs, null]);
      host.boot();
      await tick(host.tools, PATIENT);
      expect([host.profile, host.running, host.bootDefault]).toEqual([X, X, X]);
    },
  );
});

test("a switch that a person makes in the grace period of a reboot keeps it away", async () => {
  const host = await waitingHost(null, "boot");
  (host.settings.reboot as { policy: string }).policy = "now";
  host.tools.services.warnUsers = async () => {
    rebuild(host, "switch");
  };
  await tick(host.tools, PATIENT);
  expect(host.takeCalls()).not.toContain("reboot");
  expect(host.running).toBe(X);
});

describe("a trial whose generation somebody deleted", () => {
  test("is armed again before the reboot", async () => {
    const host = await waitingHost(null, "boot");
    host.generations.delete(2);
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({ denied: [], pendingReboot: { trial: true } });
    expect([...host.generations.values()]).toContain(TWO);
    host.boot();
    await tick(host.tools, PATIENT);
    expect([host.profile, host.running]).toEqual([TWO, TWO]);
  });

  test("is not denied if its boot started the proven system", async () => {
    const host = await waitingHost(null, "boot");
    host.generations.delete(2);
    host.oneShot = null;
    host.boot();
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({
      denied: [],
      state: { name: "Failed", reason: { code: "BOOT_NOT_TRIED" } },
    });
  });
});

import { describe, expect, test } from "vitest";
import { judgeBoot } from "../../../../agent/core/update/machine.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";
import { sampleHost } from "../../../support/sample-release.ts";
import { waitingHost } from "../../../support/waiting-host.ts";

const PATIENT = { insistence: "patient" } as const;
const [ONE, TWO, THREE] = [system("1"), system("2"), system("3")];

/** Loaders that can try a system once, and those that cannot. */
const LOADERS = [
  ["by a trial", null],
  ["without one", "no loader"],
] as const;

/** No release names the host any more. */
function withdraw(host: MemoryHost, sequence = 8): void {
  host.publish({ sequence, system: "2", hosts: { other: sampleHost({ toplevel: THREE }) } });
}

/** What decides what a host is after its next boot. */
function boots({ profile, bootDefault, oneShot }: MemoryHost): (string | null)[] {
  return [profile, bootDefault, oneShot];
}

describe.each(LOADERS)("a release that waits for its boot, %s,", (_, cannotTry) => {
  test("is not booted once no release names the host", async () => {
    const host = await waitingHost(cannotTry);
    withdraw(host);
    await tick(host.tools, PATIENT);
    expect(boots(host)).toEqual([ONE, ONE, null]);
    expect(host.generations.size).toBe(1);
    expect(host.roots.has("trial")).toBe(false);
    expect(host.bootDeadline).toBeNull();
    expect(host.record).toMatchObject({
      ...{ state: { name: "Idle" }, denied: [], pendingReboot: null },
      committed: { sequence: 6 },
    });
    expect(host.history.find(({ event }) => event === "BootCalledOff")).toMatchObject({
      ...{ sequence: 7, toplevel: TWO, code: "BOOT_CALLED_OFF" },
    });
    expect(host.logged).toContainEqual(
      expect.stringMatching(
        /^warn: BOOT_CALLED_OFF: the boot for release 7 is called off: release 8/,
      ),
    );
    host.boot();
    host.takeCalls();
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toEqual([]);
    expect(host.running).toBe(ONE);
  });

  test("is not rebooted for when its window comes", async () => {
    const window = { cron: "0 3 * * *", duration: "2h" };
    const reboot = { policy: "window", window };
    const host = await waitingHost(cannotTry, "boot", { reboot, maintenance: { jitter: "0s" } });
    withdraw(host);
    host.time.set("2026-02-01T03:30:00.000Z");
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).not.toContain("reboot");
  });

  test("can come back as another release", async () => {
    const host = await waitingHost(cannotTry);
    withdraw(host);
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 9, system: "2", mode: "boot" });
    await tick(host.tools, PATIENT);
    host.boot();
    await tick(host.tools, PATIENT);
    expect(host.record?.committed).toMatchObject({ sequence: 9, toplevel: TWO });
  });

  test("is no longer what the host runs for, if it ran after a live switch", async () => {
    const host = await waitingHost(cannotTry, "switch");
    expect(host.running).toBe(TWO);
    withdraw(host);
    await tick(host.tools, PATIENT);
    expect(boots(host)).toEqual([ONE, ONE, null]);
    // As after the mode `test`: it runs until the next boot.
    expect(host.running).toBe(TWO);
    expect(host.record?.committed).toMatchObject({ sequence: 7, mode: "test" });
    host.publish({ sequence: 9, system: "1" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
    expect(host.running).toBe(ONE);
  });

  test("gives way to a newer release before that is fetched", async () => {
    const host = await waitingHost(cannotTry);
    host.publish({ sequence: 8, system: "3" });
    host.fault("fetch 3", "MIRROR_STALLED");
    await tick(host.tools, PATIENT);
    expect(boots(host)).toEqual([ONE, ONE, null]);
    expect(host.record).toMatchObject({ pendingReboot: null, state: { name: "Failed" } });
  });

  test("gives way to a newer release in mode test", async () => {
    const host = await waitingHost(cannotTry);
    host.publish({ sequence: 8, system: "3", mode: "test" });
    await tick(host.tools, PATIENT);
    expect(host.running).toBe(THREE);
    expect(boots(host)).toEqual([ONE, ONE, null]);
    host.boot();
    expect(host.running).toBe(ONE);
  });

  test("stays this host's until the turn of a newer one comes", async () => {
    const host = await waitingHost(cannotTry);
    const before = boots(host);
    const start = "2026-02-01T00:00:00.000Z";
    const paused = { reason: "later", since: start };
    host.publish({ sequence: 8, system: "3", rollout: { start, salt: "a", paused } });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "waiting" } });
    expect(boots(host)).toEqual(before);
    host.boot();
    await tick(host.tools, PATIENT);
    expect(host.record?.committed).toMatchObject({ sequence: 7 });
  });

  test("is neither denied nor booted if the release after it could not be committed", async () => {
    const host = await waitingHost(cannotTry);
    host.kernels.set(THREE, "linux 3");
    host.publish({ sequence: 8, system: "3", mode: "boot" });
    const run = cannotTry === null ? "boot 1" : "boot 3";
    const locked = Array.from({ length: 30 }, () => ({ exitCode: 11 }));
    // The first run of `boot 1` calls the other boot off.
    host.nextSwitch(run, ...(cannotTry === null ? locked : locked.slice(0, 10)));
    await tick(host.tools, PATIENT);
    host.boot();
    host.switches.clear();
    expect(host.running).toBe(ONE);
    await tick(host.tools, PATIENT);
    expect(host.record?.denied).toEqual([]);
    expect(boots(host).slice(0, 2)).not.toContain(TWO);
  });

  test("is called off again if the first try was cut off", async () => {
    const host = await waitingHost(cannotTry);
    withdraw(host);
    const first = cannotTry === null ? "cancel trial" : "restore generation 1";
    host.fault(first, "INTERRUPTED", "stopped");
    await tick(host.tools, PATIENT).catch(() => undefined);
    expect(host.record?.state.name).toBe("RollingBack");
    await tick(host.tools, PATIENT);
    expect(boots(host)).toEqual([ONE, ONE, null]);
    expect(host.record?.state).toEqual({ name: "Idle" });
  });

  test("is left again if a power cut starts it before it was called off", async () => {
    const host = await waitingHost(cannotTry);
    withdraw(host);
    const first = cannotTry === null ? "cancel trial" : "restore generation 1";
    host.fault(first, "INTERRUPTED", "stopped");
    await tick(host.tools, PATIENT).catch(() => undefined);
    host.boot();
    expect(host.running).toBe(TWO);
    const { record, bootId } = host;
    expect(record && judgeBoot(record, bootId)).toBe("rejected");
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toContain("reboot");
    host.boot();
    await tick(host.tools, PATIENT);
    expect(host.running).toBe(ONE);
    expect(boots(host)).toEqual([ONE, ONE, null]);
    expect(host.record).toMatchObject({ denied: [], pendingReboot: null, state: { name: "Idle" } });
  });
});

test("a boot that cannot be called off is tried again, and no newer release is in its way", async () => {
  const host = await waitingHost("no loader");
  withdraw(host);
  host.nextSwitch("boot 1", { exitCode: 1 });
  expect((await tick(host.tools, PATIENT)).error?.code).toBe("ROLLBACK_FAILED");
  await tick(host.tools, PATIENT);
  expect(boots(host)).toEqual([ONE, ONE, null]);
});

test("a person who chose another boot default meanwhile keeps it", async () => {
  const host = await waitingHost("no loader");
  host.generations.set(3, system("9"));
  host.generation = 3;
  host.bootDefault = system("9");
  withdraw(host);
  await tick(host.tools, PATIENT);
  expect(boots(host)).toEqual([system("9"), system("9"), null]);
});

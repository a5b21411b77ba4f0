import { expect, test } from "vitest";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;
const FLEET_LOCK = { url: "https://locks.example.org/" };

/** A host that reboots at once, with a slot, for a release that only a boot can prove. */
async function rebootingHost(): Promise<MemoryHost> {
  const host = new MemoryHost({ reboot: { policy: "now", fleetLock: FLEET_LOCK } });
  host.cannotTry = null;
  host.kernels.set(system("2"), "linux 2");
  host.publish({ sequence: 6, system: "1" });
  await tick(host.tools, PATIENT);
  host.publish({ sequence: 7, system: "2", mode: "boot" });
  return host;
}

test("reboots that do not come give their slot back at last", async () => {
  const host = await rebootingHost();
  for (let polls = 0; polls < 3; polls++) await tick(host.tools, PATIENT);
  expect(host.rebootSlot).toBe("taken");
  expect((await tick(host.tools, PATIENT)).error?.code).toBe("REBOOT_LOOP");
  expect(host.rebootSlot).toBe("free");
});

test("so does a way back whose reboot does not come", async () => {
  const host = await rebootingHost();
  await tick(host.tools, PATIENT);
  host.boot();
  host.failedInBoot = [{ name: "secrets", code: 1 }];
  for (let polls = 0; polls < 3; polls++) await tick(host.tools, PATIENT);
  expect(host.record?.pendingReboot).toMatchObject({ wayBack: true, requested: 3 });
  expect((await tick(host.tools, PATIENT)).error?.code).toBe("REBOOT_LOOP");
  expect(host.rebootSlot).toBe("free");
});

test("a reboot that is refused holds no slot", async () => {
  const host = await rebootingHost();
  for (let polls = 0; polls < 2; polls++) {
    host.fault("reboot", "INTERNAL");
    expect((await tick(host.tools, PATIENT)).error?.code).toBe("INTERNAL");
    expect(host.rebootSlot).toBe("free");
  }
});

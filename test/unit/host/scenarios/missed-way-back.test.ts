import { expect, test } from "vitest";
import { judgeBoot } from "../../../../agent/core/update/machine.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;

/** A host that asked for the boot which leads back from system 2, which failed after its trial. */
async function leavingHost(): Promise<MemoryHost> {
  const host = new MemoryHost();
  host.cannotTry = null;
  host.kernels.set(system("2"), "linux 2");
  host.publish({ sequence: 7, system: "2", mode: "boot" });
  await tick(host.tools, PATIENT);
  host.boot();
  host.units = { failed: ["x.service"], restarts: new Map() };
  await tick(host.tools, PATIENT);
  expect(host.record?.pendingReboot).toMatchObject({ wayBack: true, requested: 1 });
  host.takeCalls();
  return host;
}

test("a boot as way back that starts the failed system again is said, and asked for again", async () => {
  const host = await leavingHost();
  host.boot(system("2"));
  await tick(host.tools, PATIENT);
  expect(host.takeCalls()).toEqual(["boot 1", "reboot"]);
  expect(host.logged).toContainEqual(
    "error: REBOOT_LOOP: the boot that was to lead back from release 7 started 2 again",
  );
  expect(host.history.find(({ event }) => event === "WayBackMissed")?.message).toMatch(/again$/);
  const { record, bootId } = host;
  expect(record && judgeBoot(record, bootId)).toBe("rejected");
  host.boot();
  await tick(host.tools, PATIENT);
  expect(host.running).toBe(system("1"));
  expect(host.record?.pendingReboot).toBeNull();
});

test("and it ends with an alarm if no boot leads back", async () => {
  const host = await leavingHost();
  for (let boots = 0; boots < 5; boots++) {
    host.boot(system("2"));
    await tick(host.tools, PATIENT);
  }
  expect(host.events.filter((event) => event === "RebootRequested")).toHaveLength(3);
  expect((await tick(host.tools, PATIENT)).error?.code).toBe("REBOOT_LOOP");
});

test("another boot default that a person chose meanwhile is left alone", async () => {
  const host = await leavingHost();
  host.generations.set(9, system("9"));
  host.generation = 9;
  host.boot(system("2"));
  await tick(host.tools, PATIENT);
  expect(host.takeCalls()).toEqual(["reboot"]);
});

test("and what cannot be written for it is said, not in its way", async () => {
  const host = await leavingHost();
  host.boot(system("2"));
  host.nextSwitch("boot 1", { exitCode: 1 });
  await tick(host.tools, PATIENT);
  host.boot(system("2"));
  host.fault("boot 1", "TOOL_MISSING", "no program");
  await tick(host.tools, PATIENT);
  expect(host.logged).toContainEqual(expect.stringMatching(/^error: 1 boot: it ended with exit/));
  expect(host.logged).toContainEqual("error: TOOL_MISSING: no program");
  expect(host.events.filter((event) => event === "WayBackMissed")).toHaveLength(2);
});

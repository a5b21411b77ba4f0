import { describe, expect, test } from "vitest";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system, type SwitchOutcome } from "../../../support/memory-host.ts";
import { sampleHost } from "../../../support/sample-release.ts";

const PATIENT = { insistence: "patient" } as const;
const [ONE, TWO, THREE, X] = ["1", "2", "3", "x"].map(system) as [string, string, string, string];

function often(outcome: SwitchOutcome, times: number): SwitchOutcome[] {
  return Array.from({ length: times }, () => outcome);
}

/** A host whose unproven boot default was called off, and whose /boot cannot be written. */
async function owingHost(): Promise<MemoryHost> {
  const host = new MemoryHost();
  host.cannotTry = "no loader";
  host.kernels.set(TWO, "linux 2");
  host.publish({ sequence: 6, system: "1" });
  await tick(host.tools, PATIENT);
  host.publish({ sequence: 7, system: "2", mode: "boot" });
  await tick(host.tools, PATIENT);
  host.publish({ sequence: 8, system: "2", hosts: { other: sampleHost({ toplevel: THREE }) } });
  host.nextSwitch("boot 1", ...often({ exitCode: 1 }, 99));
  for (let polls = 0; polls < 3; polls++) await tick(host.tools, PATIENT);
  expect(host.bootDefault).toBe(TWO);
  return host;
}

describe("a boot default that is owed is set at last", () => {
  test.each(["test", "dry-activate"] as const)("after a release in mode %s", async (mode) => {
    const host = await owingHost();
    host.publish({ sequence: 9, system: "3", mode });
    await tick(host.tools, PATIENT);
    expect(host.record?.committed?.toplevel).toBe(THREE);
    expect((await tick(host.tools, PATIENT)).error?.code).toBe("ROLLBACK_FAILED");
    host.switches.clear();
    await tick(host.tools, PATIENT);
    expect(host.bootDefault).toBe(ONE);
    expect(host.running).toBe(mode === "test" ? THREE : ONE);
    expect(host.record?.unfinishedWayBack).toBeUndefined();
  });

  test("after a release that the host is already", async () => {
    const host = await owingHost();
    host.publish({ sequence: 9, system: "1" });
    for (let polls = 0; polls < 3; polls++) await tick(host.tools, PATIENT);
    expect(host.record?.committed).toMatchObject({ sequence: 6 });
    host.switches.clear();
    for (let polls = 0; polls < 2; polls++) await tick(host.tools, PATIENT);
    expect(host.bootDefault).toBe(ONE);
    expect(host.record?.committed).toMatchObject({ sequence: 9 });
    expect(host.record?.unfinishedWayBack).toBeUndefined();
  });

  test("after a person's nixos-rebuild test, which is left running", async () => {
    const host = await owingHost();
    host.publish({ sequence: 9, system: "3" });
    host.valid.add(X);
    const meanwhile = (): void => {
      host.running = X;
    };
    host.nextSwitch("test 3", { exitCode: 11, meanwhile });
    await tick(host.tools, PATIENT);
    host.switches.clear();
    await tick(host.tools, PATIENT);
    expect(host.bootDefault).toBe(ONE);
    expect(host.running).toBe(X);
  });
});

describe("a committed release that is activated again and cut off stays committed", () => {
  test("for its specialisation after a boot; a rollback by hand denies it", async () => {
    const host = new MemoryHost();
    host.specialisations.set(TWO, new Map([["s", system("2s")]]));
    host.publish({ sequence: 6, system: "1" });
    await tick(host.tools, PATIENT);
    const entry = { activation: { mode: "switch", specialisation: "s" } } as const;
    host.publish({ sequence: 7, system: "2", entry });
    await tick(host.tools, PATIENT);
    host.boot();
    host.nextSwitch("test 2s", { exitCode: null });
    await tick(host.tools, PATIENT);
    expect(host.record?.committed?.toplevel).toBe(TWO);
    await rollBackByHand(host.tools, null);
    await tick(host.tools, PATIENT);
    expect([host.profile, host.running]).toEqual([ONE, ONE]);
  });

  test("for drift", async () => {
    const host = new MemoryHost({ drift: "revert" });
    host.publish({ sequence: 6, system: "1" });
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    host.running = X;
    host.valid.add(X);
    host.nextSwitch("test 2", { exitCode: null, moves: true });
    await tick(host.tools, PATIENT);
    expect(host.record?.committed?.toplevel).toBe(TWO);
    await rollBackByHand(host.tools, null);
    await tick(host.tools, PATIENT);
    expect([host.profile, host.running]).toEqual([ONE, ONE]);
  });
});

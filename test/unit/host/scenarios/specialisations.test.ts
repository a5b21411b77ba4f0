import { describe, expect, test } from "vitest";
import { driftOf } from "../../../../agent/core/update/drift.ts";
import { observe } from "../../../../agent/host/observe.ts";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;
const TWO = system("2");
const DEBUG = system("2-debug");
const QUIET = system("2-quiet");

/** A host for which a release has a system with two specialisations; it is to run one of them. */
function hostWith(specialisation?: string, config: object = {}): MemoryHost {
  const host = new MemoryHost(config);
  host.specialisations.set(
    TWO,
    new Map([
      ["debug", DEBUG],
      ["quiet", QUIET],
    ]),
  );
  const entry = specialisation === undefined ? {} : { activation: { specialisation } };
  host.publish({ sequence: 7, system: "2", entry });
  return host;
}

describe("a specialisation", () => {
  test.each([
    ["the release", hostWith("debug")],
    ["the host", hostWith(undefined, { activation: { specialisation: "debug" } })],
    ["the host before the release", hostWith("quiet", { activation: { specialisation: "debug" } })],
  ])("that %s names runs, and the system itself is profile and boot default", async (_, host) => {
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true, error: null });
    const { running, profile, bootDefault } = host;
    expect({ running, profile, bootDefault }).toEqual({
      ...{ running: DEBUG, profile: TWO, bootDefault: TWO },
    });
    expect(host.record).toMatchObject({ committed: { toplevel: TWO, specialisation: "debug" } });
    expect(host.takeCalls()).toEqual(expect.arrayContaining(["test 2-debug", "boot 2"]));
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "active" } });
    expect(host.takeCalls()).toEqual([]);
    expect(await observe(host.tools)).toMatchObject({ running: TWO, specialisation: "debug" });
  });

  test("runs again after a boot, which starts the system itself", async () => {
    const host = hostWith("debug");
    await tick(host.tools, PATIENT);
    host.boot();
    expect(host.running).toBe(TWO);
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true, error: null });
    expect(host.running).toBe(DEBUG);
  });

  test("that fails after a boot is left for the system itself, and says why", async () => {
    const host = hostWith("debug");
    await tick(host.tools, PATIENT);
    host.boot();
    host.nextSwitch("test 2-debug", { exitCode: 17 });
    expect((await tick(host.tools, PATIENT)).error?.code).toBe("ACTIVATION_FAILED");
    expect([host.running, host.profile, host.bootDefault]).toEqual([TWO, TWO, TWO]);
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      decision: { kind: "denied", reason: { code: "ACTIVATION_FAILED" } },
    });
  });

  test("that fails is denied alone: neither its system nor another specialisation is", async () => {
    const host = hostWith();
    await tick(host.tools, PATIENT);
    const publish = (sequence: number, specialisation?: string): string =>
      host.publish({
        ...{ sequence, system: "2" },
        ...(specialisation !== undefined && { entry: { activation: { specialisation } } }),
      });
    publish(8, "debug");
    host.nextSwitch("test 2-debug", { exitCode: 17 });
    expect((await tick(host.tools, PATIENT)).error?.code).toBe("ACTIVATION_FAILED");
    expect(host.record).toMatchObject({
      committed: { sequence: 7, toplevel: TWO },
      denied: [{ toplevel: TWO, specialisation: "debug", mode: "switch" }],
    });
    publish(9, "debug");
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "denied" } });
    publish(10);
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "adopt" } });
    publish(11, "quiet");
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true, error: null });
    expect(host.running).toBe(QUIET);
    expect(host.record?.denied).toHaveLength(1);
    // The system is one to go back to: what failed was another.
    host.publish({ sequence: 12, system: "3" });
    await tick(host.tools, PATIENT);
    expect(await rollBackByHand(host.tools, null)).toMatchObject({ toplevel: TWO });
  });

  test("is tried although the system itself failed when it was switched to, not if it was booted", async () => {
    const host = hostWith();
    host.nextSwitch("test 2", { exitCode: 17 });
    await tick(host.tools, PATIENT);
    expect(host.record?.denied).toMatchObject([{ toplevel: TWO, specialisation: null }]);
    host.publish({
      ...{ sequence: 8, system: "2" },
      entry: { activation: { specialisation: "debug" } },
    });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true, error: null });

    const booted = hostWith("debug");
    booted.publish({ sequence: 8, system: "2", mode: "boot" });
    await tick(booted.tools, PATIENT);
    booted.boot();
    booted.units = { failed: ["web.service"], restarts: new Map() };
    await tick(booted.tools, PATIENT);
    expect(booted.record?.denied[0]).not.toHaveProperty("specialisation");
    booted.publish({
      ...({ sequence: 9, system: "2", mode: "boot" } as const),
      entry: { activation: { specialisation: "debug" } },
    });
    expect(await tick(booted.tools, PATIENT)).toMatchObject({ decision: { kind: "denied" } });
  });

  test("that failed and could not be left is no system to go back to", async () => {
    const host = hostWith("debug");
    host.nextSwitch("test 2-debug", { exitCode: 17, moves: true });
    host.nextSwitch("switch 1", { exitCode: 17 });
    await tick(host.tools, PATIENT);
    expect(host.running).toBe(DEBUG);
    host.publish({ sequence: 8, system: "3" });
    host.fault("hold agent", "INTERRUPTED", "ended");
    await tick(host.tools, PATIENT);
    expect(host.record?.state).toMatchObject({
      name: "Staged",
      baseline: { profile: system("1"), running: system("1") },
    });
  });

  test.each([[QUIET], [TWO]])(
    "of the release that a person chose is no drift: %s",
    async (chosen) => {
      const host = hostWith(chosen === TWO ? undefined : "debug");
      await tick(host.tools, PATIENT);
      host.running = chosen === TWO ? DEBUG : chosen;
      const seen = await observe(host.tools);
      expect(driftOf(host.record ?? { committed: null, pendingReboot: null }, seen)).toBeNull();
      host.takeCalls();
      expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "active" } });
      expect(host.takeCalls()).toEqual([]);
    },
  );

  test("gives way to another one, or to the system itself, if the next release says so", async () => {
    const host = hostWith("debug");
    await tick(host.tools, PATIENT);
    const entry = { activation: { specialisation: "quiet" } };
    host.publish({ sequence: 8, system: "2", entry });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
    expect(host.running).toBe(QUIET);
    host.publish({ sequence: 9, system: "2" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
    expect(host.running).toBe(TWO);
    expect(host.record?.committed?.specialisation).toBeUndefined();
  });

  test("that the system does not have is refused before anything is touched", async () => {
    const host = hostWith("loud");
    const { error } = await tick(host.tools, PATIENT);
    expect(error).toMatchObject({ code: "SPECIALISATION_MISSING" });
    expect(error?.message).toMatch(/expected a specialisation loud, found debug, quiet/);
    expect(host.running).toBe(system("1"));
    expect(host.record).toMatchObject({ denied: [], state: { name: "Failed" } });
  });

  test("is what a later release that fails is left for", async () => {
    const host = hostWith("debug");
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "3" });
    host.nextSwitch("test 3", { exitCode: 17 });
    await tick(host.tools, PATIENT);
    expect([host.running, host.profile, host.bootDefault]).toEqual([DEBUG, TWO, TWO]);
  });

  test("that a person chooses while another is judged is not undone", async () => {
    const host = hostWith("debug", { health: { settle: "1s", interval: "1s", timeout: "3s" } });
    const meanwhile = (): void => {
      void host.time.sleep(500).then(() => {
        host.running = QUIET;
      });
    };
    host.nextSwitch("test 2-debug", { exitCode: 0, meanwhile });
    expect((await tick(host.tools, PATIENT)).error?.code).toBe("CHANGED_BY_HAND");
    expect(host.running).toBe(QUIET);
    expect(host.record?.denied).toEqual([]);
  });
});

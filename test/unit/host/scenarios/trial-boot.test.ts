import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { EMPTY_RECORD } from "../../../../agent/core/update/record.ts";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { snippetText } from "../../../../agent/core/update/switch-output.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;

/** A host with a loader that can try, and a release with another kernel in this mode. */
function hostWith(mode: "switch" | "boot", config: object = {}): MemoryHost {
  const host = new MemoryHost(config);
  host.cannotTry = null;
  host.kernels.set(system("2"), "linux 2");
  host.publish({ sequence: 7, system: "2", mode });
  return host;
}

/** What decides what a host is. */
function parts(host: MemoryHost): object {
  const { running, profile, bootDefault, oneShot } = host;
  return { running, profile, bootDefault, oneShot };
}

const ONE = system("1");
const TWO = system("2");

test("a loader that tries nothing costs a host two reboots and no more, whatever the mode", async () => {
  const host = hostWith("switch", { reboot: { policy: "now" } });
  let reboots = 0;
  for (let polls = 0; polls < 40; polls++) {
    await tick(host.tools, PATIENT);
    if (host.takeCalls().includes("reboot")) {
      reboots++;
      // The loader starts the default, and still knows of the trial.
      const { oneShot } = host;
      host.boot(ONE);
      host.oneShot = oneShot;
    }
    await host.time.sleep(6 * 3_600_000);
  }
  expect(reboots).toBe(2);
  expect(host.record?.denied).toEqual([]);
});

describe("a boot loader that cannot be written", () => {
  test("by the proven system is no fault of the new one, however often", async () => {
    const host = hostWith("boot");
    host.nextSwitch("boot 1", ...Array.from({ length: 20 }, () => ({ exitCode: 1 })));
    for (let tries = 0; tries < 8; tries++) {
      host.nextSwitch("boot 1", { exitCode: 1 });
      await tick(host.tools, { insistence: "retry" });
      host.switches.delete("boot 1");
      await tick(host.tools, PATIENT);
      host.nextSwitch("boot 1", { exitCode: 1 }, { exitCode: 0 });
    }
    expect(host.record?.denied).toEqual([]);
    expect(host.record?.state).toMatchObject({ name: "Failed", gaveUp: true });
  });
});

describe("a system that needs a boot", () => {
  test("is tried once, while the proven one stays profile and boot default", async () => {
    const host = hostWith("boot");
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true, error: null });
    expect(host.takeCallsFrom("[Committing]")).toEqual([
      "[Committing]",
      "hold trial 2",
      "set profile 2",
      "restore generation 1",
      "hold agent 1",
      "arm boot deadline of 2",
      "boot 1",
      "try once 2",
      "[Armed]",
      "release previous-profile",
      "release previous-running",
      "release pending",
      "abandon fetch",
      "[Idle]",
    ]);
    expect(parts(host)).toEqual({ running: ONE, profile: ONE, bootDefault: ONE, oneShot: TWO });
    // Nothing is committed that was not proven.
    expect(host.record).toMatchObject({ committed: null, pendingReboot: { trial: true } });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "active" } });
    expect(host.record?.committed).toBeNull();
  });

  test("becomes profile and boot default once its boot has proven it", async () => {
    const host = hostWith("boot");
    await tick(host.tools, PATIENT);
    host.boot();
    expect(host.running).toBe(TWO);
    expect(host.bootDefault).toBe(ONE);
    expect(await tick(host.tools, PATIENT)).toMatchObject({ error: null });
    expect(parts(host)).toEqual({ running: TWO, profile: TWO, bootDefault: TWO, oneShot: null });
    expect(host.record).toMatchObject({ pendingReboot: null, committed: { toplevel: TWO } });
    expect(host.roots.get("trial")).toBeUndefined();
    expect(host.bootDeadline).toBeNull();
  });

  test("of the mode switch is proven live before, and runs until the trial", async () => {
    const host = hostWith("switch");
    await tick(host.tools, PATIENT);
    expect(parts(host)).toEqual({ running: TWO, profile: ONE, bootDefault: ONE, oneShot: TWO });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "active" } });
    host.boot();
    await tick(host.tools, PATIENT);
    expect(parts(host)).toEqual({ running: TWO, profile: TWO, bootDefault: TWO, oneShot: null });
  });

  test.each(["switch", "boot"] as const)(
    "whose kernel is dead comes back by the next reset in mode %s, and is denied",
    async (mode) => {
      const host = hostWith(mode);
      host.dead.add(TWO);
      await tick(host.tools, PATIENT);
      host.takeCalls();
      host.boot();
      expect(host.running).toBe(ONE);
      await tick(host.tools, PATIENT);
      // There is nothing to restore.
      expect(host.takeCalls()).toEqual([
        "[Verifying]",
        "[RollingBack]",
        "[RolledBack]",
        "delete generation 2",
        "disarm boot deadline",
        "release agent",
        "release trial",
        "abandon fetch",
        "[Idle]",
      ]);
      expect(host.record).toMatchObject({
        ...{ committed: null, pendingReboot: null },
        denied: [{ toplevel: TWO, mode, reason: { code: "BOOT_TRIAL_FAILED" } }],
      });
      expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "denied" } });
      expect(parts(host)).toEqual({ running: ONE, profile: ONE, bootDefault: ONE, oneShot: null });
    },
  );

  test("that comes up sick is left by one more boot, without a switch", async () => {
    const host = hostWith("boot", { reboot: { policy: "never", grace: "0s" } });
    await tick(host.tools, PATIENT);
    host.boot();
    host.units = { failed: ["web.service"], restarts: new Map() };
    host.takeCalls();
    await tick(host.tools, PATIENT);
    const calls = host.takeCalls();
    const harmless = /^(hold|delete generation) /;
    expect(calls.filter((call) => / \d$/.test(call) && !harmless.test(call))).toEqual([]);
    expect(calls).toContain("reboot");
    host.boot();
    host.units = { failed: [], restarts: new Map() };
    await tick(host.tools, PATIENT);
    expect(parts(host)).toEqual({ running: ONE, profile: ONE, bootDefault: ONE, oneShot: null });
    expect(host.record).toMatchObject({
      denied: [{ toplevel: TWO, reason: { code: "HEALTH_FAILED" } }],
      pendingReboot: null,
    });
  });

  test.each([
    ["the loader can try it once", null],
    ["it is the boot default before", "no"],
  ])(
    "whose failed snippets failed in the boot before, too, is not to blame: %s",
    async (_, why) => {
      const host = new MemoryHost();
      host.cannotTry = why;
      host.failedInBoot = [{ name: "setupSecrets", code: 1 }];
      host.publish({ sequence: 7, system: "2", mode: "boot" });
      await tick(host.tools, PATIENT);
      host.boot();
      expect((await tick(host.tools, PATIENT)).error).toBeNull();
      expect(host.record).toMatchObject({ committed: { sequence: 7 }, denied: [] });

      // One that fails only in the new system's boot is.
      host.publish({ sequence: 8, system: "3", mode: "boot" });
      await tick(host.tools, PATIENT);
      host.boot();
      host.failedInBoot = [
        { name: "setupSecrets", code: 1 },
        { name: "users", code: 1 },
      ];
      await tick(host.tools, PATIENT);
      const message = "the activation script failed in the boot: users (1)";
      expect(host.record?.denied).toMatchObject([
        { toplevel: system("3"), reason: { code: "ACTIVATION_FAILED", message } },
      ]);
    },
  );

  test("whose activation script failed in the boot is left, though its units run", async () => {
    const host = hostWith("boot");
    await tick(host.tools, PATIENT);
    host.boot();
    host.failedInBoot = [{ name: "setupSecrets", code: 1 }];
    await tick(host.tools, PATIENT);
    const message = expect.stringMatching(/in the boot: .*setupSecrets/) as string;
    expect(host.record).toMatchObject({
      denied: [{ toplevel: TWO, reason: { code: "ACTIVATION_FAILED", message } }],
      ...{ committed: null, pendingReboot: { wayBack: true } },
    });
  });

  test("is not to blame for snippets that failed in the system before", async () => {
    const host = hostWith("boot");
    const known = snippetText({ name: "setupSecrets", code: 1 });
    host.record = {
      ...EMPTY_RECORD,
      failingSnippets: [{ toplevel: ONE, snippets: [known] }],
    };
    await tick(host.tools, PATIENT);
    host.boot();
    host.failedInBoot = [{ name: "setupSecrets", code: 1 }];
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({ denied: [], committed: { toplevel: TWO } });
  });

  test("that the boot loader passes by is not denied, and tried again at most once", async () => {
    const host = hostWith("boot");
    await tick(host.tools, PATIENT);
    host.boot(ONE);
    host.oneShot = TWO;
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({
      ...{ denied: [], pendingReboot: null },
      state: { name: "Failed", reason: { code: "BOOT_NOT_TRIED" } },
    });
    expect(host.oneShot).toBeNull();
  });

  test("becomes the boot default at once if the boot loader cannot try, and says so", async () => {
    const host = hostWith("boot");
    host.cannotTry = "it is a stone";
    await tick(host.tools, PATIENT);
    expect(parts(host)).toEqual({ running: ONE, profile: TWO, bootDefault: TWO, oneShot: null });
    expect(host.history.find(({ event }) => event === "BootDefaultSet")).toMatchObject({
      message: "not tried by one boot: it is a stone",
    });
  });

  test("is undone and tried again if the proven system's boot loader cannot be installed", async () => {
    const host = hostWith("boot");
    host.nextSwitch("boot 1", { exitCode: 1 });
    const { error } = await tick(host.tools, PATIENT);
    expect(error?.code).toBe("BOOT_LOADER_FAILED");
    expect(parts(host)).toEqual({ running: ONE, profile: ONE, bootDefault: ONE, oneShot: null });
    expect(host.record).toMatchObject({ denied: [], state: { name: "Failed" } });
    expect([...host.generations.values()]).toEqual([ONE]);
  });
});

describe("a system that was tried and did not prove itself", () => {
  test("is no system to go back to, neither after a denial nor unjudged", async () => {
    const host = hostWith("boot");
    host.dead.add(TWO);
    await tick(host.tools, PATIENT);
    host.boot();
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "3" });
    await tick(host.tools, PATIENT);
    expect((await rollBackByHand(host.tools, null)).toplevel).toBe(ONE);
    expect(host.bootDefault).toBe(ONE);
  });

  test("is no system to go back to if another release took the place of its trial", async () => {
    const host = hostWith("boot");
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "3" });
    await tick(host.tools, PATIENT);
    expect((await rollBackByHand(host.tools, null)).toplevel).toBe(ONE);
  });

  test("is judged before a newer release, even if a power cut came before it was recorded as armed", async () => {
    const host = hostWith("boot");
    const { tools } = host;
    const cut = new PullError("INTERRUPTED", "the power is cut");
    const bootLoader: typeof tools.bootLoader = {
      ...tools.bootLoader,
      async tryOnce(trial) {
        await tools.bootLoader.tryOnce(trial);
        throw cut;
      },
    };
    expect((await tick({ ...tools, bootLoader }, PATIENT)).error).toBe(cut);
    host.boot();
    expect(host.running).toBe(TWO);
    host.kernels.set(system("3"), "linux 2");
    host.publish({ sequence: 8, system: "3" });
    await tick(tools, PATIENT);
    expect(host.events.filter((event) => event === "BootDefaultSet")).toHaveLength(2);
    expect(host.events.indexOf("RebootNoticed")).toBeLessThan(
      host.events.lastIndexOf("ReleaseAccepted"),
    );
  });
});

describe("a pending trial", () => {
  test("makes way for a newer release that needs no boot", async () => {
    const host = hostWith("boot");
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "3" });
    await tick(host.tools, PATIENT);
    const THREE = system("3");
    expect(parts(host)).toEqual({
      ...{ running: THREE, profile: THREE, bootDefault: THREE, oneShot: null },
    });
    expect(host.record).toMatchObject({ pendingReboot: null, committed: { sequence: 8 } });
  });

  test("is called off by a person who goes back, and its system is denied", async () => {
    const host = hostWith("switch");
    await tick(host.tools, PATIENT);
    await rollBackByHand(host.tools, null);
    expect(parts(host)).toEqual({ running: ONE, profile: ONE, bootDefault: ONE, oneShot: null });
    expect(host.record).toMatchObject({ denied: [{ toplevel: TWO }], pendingReboot: null });
  });

  test("is called off once the host is to be what it was", async () => {
    const host = hostWith("boot");
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "1" });
    await tick(host.tools, PATIENT);
    expect(parts(host)).toEqual({ running: ONE, profile: ONE, bootDefault: ONE, oneShot: null });
    expect(host.record).toMatchObject({ pendingReboot: null, committed: { sequence: 8 } });
  });
});

describe("a power cut", () => {
  /** What the agent did until it was armed, one call after the other. */
  async function callsOfArming(): Promise<string[]> {
    const host = hostWith("boot");
    await tick(host.tools, PATIENT);
    const calls = host.takeCallsFrom("[Committing]");
    return calls.slice(1, calls.indexOf("[Armed]"));
  }

  test("at any moment of arming finds a proven boot default, and the trial is armed later", async () => {
    for (const call of await callsOfArming()) {
      const host = hostWith("boot");
      host.fault(call, "INTERRUPTED");
      await tick(host.tools, PATIENT);
      expect(host.bootDefault, call).toBe(ONE);
      host.boot();
      expect(host.running, call).toBe(ONE);
      await tick(host.tools, PATIENT);
      expect(parts(host), call).toEqual({
        ...{ running: ONE, profile: ONE, bootDefault: ONE, oneShot: TWO },
      });
      host.boot();
      await tick(host.tools, PATIENT);
      expect(host.record?.committed, call).toMatchObject({ toplevel: TWO });
    }
  });

  test("after the loader was told and before that was recorded leads to the same end", async () => {
    const host = hostWith("boot");
    const before = { ...host.tools, bootLoader: { ...host.tools.bootLoader } };
    before.bootLoader.tryOnce = async (trial) => {
      await host.tools.bootLoader.tryOnce(trial);
      host.boot();
      throw host.interrupted;
    };
    await tick(before, PATIENT);
    expect(host.running).toBe(TWO);
    await tick(host.tools, PATIENT);
    await tick(host.tools, PATIENT);
    expect(parts(host)).toEqual({ running: TWO, profile: TWO, bootDefault: TWO, oneShot: null });
    expect(host.record?.committed).toMatchObject({ toplevel: TWO });
  });

  test("while the tried system is judged tries it again and does not deny it", async () => {
    const host = hostWith("boot");
    await tick(host.tools, PATIENT);
    host.boot();
    host.fault("check ", "INTERRUPTED");
    const stopped = { ...host.tools, services: { ...host.tools.services } };
    stopped.services.unitTroubles = async () => Promise.reject(host.interrupted);
    await tick(stopped, PATIENT);
    expect(host.record?.state.name).toBe("Verifying");
    host.boot();
    expect(host.running).toBe(ONE);
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({
      ...{ denied: [], pendingReboot: null },
      state: { name: "Failed", reason: { code: "ACTIVATION_INTERRUPTED" } },
    });
  });

  test("while a proven system is committed boots the old one, and the commit is finished", async () => {
    const host = hostWith("boot");
    await tick(host.tools, PATIENT);
    host.boot();
    host.fault("boot 2", "INTERRUPTED");
    await tick(host.tools, PATIENT);
    expect([host.profile, host.bootDefault]).toEqual([TWO, ONE]);
    host.boot();
    expect(host.running).toBe(ONE);
    await tick(host.tools, PATIENT);
    // It is proven, so that it needs no trial; it runs after the next boot.
    expect(parts(host)).toEqual({ running: ONE, profile: TWO, bootDefault: TWO, oneShot: null });
    expect(host.record?.pendingReboot).toMatchObject({ release: { toplevel: TWO } });
    host.boot();
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({ pendingReboot: null, committed: { toplevel: TWO } });
  });
});

describe("generations.keep", () => {
  test("holds before the boot loader runs, and spares the way back", async () => {
    const host = new MemoryHost({ generations: { keep: 2 } });
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    const calls = host.takeCallsFrom("set profile 2");
    expect(calls.slice(0, 3)).toEqual(["set profile 2", "prune generations to 2 and 1", "boot 2"]);
    expect(calls).toContain("prune generations to 2");
  });

  test("a boot loader without room leads back without the failed system's kernel", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("boot 2", { exitCode: 1 });
    await tick(host.tools, PATIENT);
    const calls = host.takeCallsFrom("boot 2");
    expect(calls.slice(1, 4)).toEqual(["restore generation 1", "delete generation 2", "boot 1"]);
    expect(calls).toContain("switch 1");
  });
});

import { describe, expect, test } from "vitest";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system, type SwitchOutcome } from "../../../support/memory-host.ts";
import type { ActivationMode } from "../../../../agent/core/formats/manifest.ts";

const PATIENT = { insistence: "patient" } as const;
const LOCKED: SwitchOutcome = { exitCode: 11 };
const times = (count: number, outcome: SwitchOutcome): SwitchOutcome[] =>
  Array.from({ length: count }, () => outcome);

/** What a host becomes whose runs of an action end like this. */
async function switched(
  run: string,
  outcomes: readonly SwitchOutcome[],
  options: { mode?: ActivationMode; change?: (host: MemoryHost) => void } = {},
) {
  const host = new MemoryHost();
  host.publish({ sequence: 7, system: "2", mode: options.mode ?? "switch" });
  host.nextSwitch(run, ...outcomes);
  options.change?.(host);
  const { error, updated } = await tick(host.tools, PATIENT);
  return { host, updated, code: error?.code, message: error?.message };
}

describe("the switch that proves a system", () => {
  test("waits for another one that holds the lock", async () => {
    const { host, updated } = await switched("test 2", times(9, LOCKED));
    expect(updated).toBe(true);
    expect(host.takeCalls().filter((call) => call === "test 2")).toHaveLength(10);
    // 9 waits of 3 s, and the health gate's second.
    expect(host.time.steadyMs()).toBe(28_000);
    expect(host.logged).toContain("warn: another switch-to-configuration runs; waiting for it");
  });

  test("did nothing if the lock was held all the time", async () => {
    const { host, code, message } = await switched("test 2", times(10, LOCKED));
    expect([code, message]).toEqual([
      "SWITCH_LOCKED",
      "not begun: another switch-to-configuration holds the lock",
    ]);
    expect(host.takeCallsFrom("[Failed]")).toEqual([
      "[Failed]",
      "disarm deadline",
      "release previous-profile",
      "release previous-running",
      "disarm boot deadline",
      "release agent",
    ]);
    expect(host.record).toMatchObject({ state: { name: "Failed", attempts: 1 }, denied: [] });
    expect(host.running).toBe(system("1"));
  });

  test("is undone if an agent before may have begun it", async () => {
    const { host } = await switched("test 2", times(10, LOCKED), {
      change: (it) => {
        it.fault("test 2", "INTERRUPTED", "ended");
      },
    });
    expect(host.record?.state).toMatchObject({ name: "Activating", restarts: 0 });
    const { decision } = await tick(host.tools, PATIENT);
    expect(decision).toMatchObject({ kind: "backoff", reason: { code: "ACTIVATION_INTERRUPTED" } });
    expect(host.events.slice(-4)).toEqual([
      "AgentRestarted",
      "ActivationInterrupted",
      "RollbackSucceeded",
      "LeftoversRemoved",
    ]);
  });

  test.each<[string, SwitchOutcome, string | undefined, string | undefined]>([
    ["succeeded", { exitCode: 0 }, undefined, undefined],
    [
      "failed",
      { exitCode: 2 },
      "ACTIVATION_FAILED",
      `switch-to-configuration test: it ended with exit code 2 (the activation script failed, or a file was missing), but ${system("1")} runs`,
    ],
    [
      "did not end in time",
      { exitCode: null, timedOut: true },
      "ACTIVATION_TIMEOUT",
      "switch-to-configuration test: it did not finish in its time limit",
    ],
    [
      "was ended by a signal",
      { exitCode: null },
      "ACTIVATION_INTERRUPTED",
      "switch-to-configuration test: a signal ended it",
    ],
    ["left failed units to the health gate", { exitCode: 4 }, undefined, undefined],
  ])("that %s", async (_, outcome, code, message) => {
    const { host, updated, ...found } = await switched("test 2", [outcome]);
    expect(found).toEqual({ code, message });
    expect(updated).toBe(code === undefined);
    expect(host.running).toBe(system(code === undefined ? "2" : "1"));
  });

  test("whose failed units nobody can look at has failed", async () => {
    const { code, message } = await switched("test 2", [{ exitCode: 4 }], {
      change: (host) => {
        host.units = null;
      },
    });
    expect([code, message]).toEqual([
      "ACTIVATION_FAILED",
      "switch-to-configuration test: a unit failed to start, stop or reload",
    ]);
  });

  test("with failed units says so in the history", async () => {
    const { host } = await switched("test 2", [{ exitCode: 4 }]);
    const message = "a unit failed to start, stop or reload";
    expect(host.history).toContainEqual(
      expect.objectContaining({ event: "ActivationSucceeded", message }),
    );
  });

  describe("with a snippet that fails", () => {
    const failing = {
      exitCode: 2,
      facts: { activationScriptFailed: true, failedSnippets: [{ name: "secrets", code: 1 }] },
    };
    const switching = { ...failing, exitCode: 4 };

    test.each([
      ["in the boot of the running system is no news", [{ name: "secrets", code: 1 }], true],
      ["and another one in that boot is", [{ name: "other", code: 1 }], false],
      ["and in that boot with another code is", [{ name: "secrets", code: 2 }], false],
      ["and a boot of which nothing can be seen is", null, false],
    ])("%s", async (_, failedInBoot, isKnown) => {
      const { host, updated } = await switched("test 2", [switching], {
        change: (it) => {
          it.failedInBoot = failedInBoot;
        },
      });
      expect(updated).toBe(isKnown);
      expect(host.record?.denied).toHaveLength(isKnown ? 0 : 1);
    });

    test("as in the boot of a system that runs no more is news", async () => {
      const { updated } = await switched("test 2", [switching], {
        change: (it) => {
          it.failedInBoot = [{ name: "secrets", code: 1 }];
          it.booted = system("0");
        },
      });
      expect(updated).toBe(false);
    });
  });

  test("that asks for a reboot is committed and proven by that", async () => {
    const { host, updated } = await switched("test 2", [{ exitCode: 100 }]);
    expect(updated).toBe(true);
    expect(host.takeCallsFrom("test 2").slice(1, 5)).toEqual([
      "prove agent of 2",
      "[Committing]",
      "set profile 2",
      "boot 2",
    ]);
    expect(host.record?.pendingReboot).toMatchObject({ wayBack: false, bootId: "boot 1" });
  });

  test("that asks for a reboot in mode test is not begun", async () => {
    const { host, code, message } = await switched("test 2", [{ exitCode: 100 }], { mode: "test" });
    expect([code, message]).toEqual(["BOOT_REQUIRED", "test: it takes effect only with a reboot"]);
    expect(host.record).toMatchObject({ state: { name: "Failed", attempts: 1 }, denied: [] });
  });

  test("that lacks a program for a moment is undone and tried again", async () => {
    const { host, code } = await switched("test 2", [], {
      change: (it) => {
        it.fault("test 2", "TOOL_TIMEOUT", "slow");
      },
    });
    expect(code).toBe("TOOL_TIMEOUT");
    expect(host.record).toMatchObject({ state: { name: "Failed", attempts: 1 }, denied: [] });
  });

  test("that fails for a reason that stays is denied", async () => {
    const { host, code } = await switched("test 2", [], {
      change: (it) => {
        it.fault("test 2", "NOT_A_SYSTEM", "gone");
      },
    });
    expect(code).toBe("NOT_A_SYSTEM");
    expect(host.record?.denied).toMatchObject([
      { reason: { code: "NOT_A_SYSTEM", message: "gone" } },
    ]);
  });
});

describe("the system's own checks", () => {
  const change = (host: MemoryHost): void => {
    host.checking.add(system("2"));
  };

  test("run before anything is armed", async () => {
    const { host, updated } = await switched("check 2", [], { change });
    expect(updated).toBe(true);
    expect(host.takeCallsFrom("[Staged]").slice(0, 3)).toEqual([
      "[Staged]",
      "check 2",
      "hold agent 1",
    ]);
    expect(host.history).toContainEqual(
      expect.objectContaining({ event: "ActivationBegun", lastLines: ["check 2 ran"] }),
    );
  });

  test("hold a system back, which is not denied for that", async () => {
    const facts = { checksRefused: true, failedChecks: ["nfs"] };
    const { host, code, message } = await switched("check 2", [{ exitCode: 1, facts }], { change });
    expect([code, message]).toEqual([
      "SWITCH_REFUSED",
      "not begun: the pre-switch check nfs refused",
    ]);
    expect(host.record).toMatchObject({ state: { name: "Failed", attempts: 1 }, denied: [] });
    expect(host.takeCalls()).not.toContain("test 2");
  });

  test("that another switch keeps from running are tried again", async () => {
    const { host, code, message } = await switched("check 2", times(10, LOCKED), { change });
    expect([code, message]).toEqual([
      "SWITCH_LOCKED",
      "not begun: another switch-to-configuration holds the lock",
    ]);
    expect(host.record).toMatchObject({ state: { name: "Failed", attempts: 1 }, denied: [] });
  });
});

describe("the switch that makes the boot default", () => {
  const REFUSED = { exitCode: 1, facts: { checksRefused: true, failedChecks: ["nfs"] } };

  test("and is refused in mode boot was not begun, however often", async () => {
    const { host, code } = await switched("boot 2", times(7, REFUSED), { mode: "boot" });
    expect(code).toBe("SWITCH_REFUSED");
    for (let tries = 0; tries < 6; tries++) await tick(host.tools, { insistence: "retry" });
    expect(host.record).toMatchObject({ state: { name: "Failed", attempts: 7 }, denied: [] });
    expect([host.profile, host.bootDefault]).toEqual([system("1"), system("1")]);
    expect(host.takeCalls()).not.toContain("boot 1");
    expect(await tick(host.tools, { insistence: "retry" })).toMatchObject({ updated: true });
    expect([host.profile, host.bootDefault]).toEqual([system("2"), system("2")]);
  });

  test("and is refused after an earlier run of it was cut off is undone", async () => {
    const { host } = await switched("boot 2", [REFUSED], {
      mode: "boot",
      change: (it) => {
        it.fault("boot 2", "INTERRUPTED", "ended");
      },
    });
    expect(host.record?.state).toMatchObject({ name: "Committing" });
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toContain("boot 1");
    expect(host.record).toMatchObject({ state: { name: "Failed", undone: 1 }, denied: [] });
  });

  test.each([
    ["refused", REFUSED, 1],
    ["locked out", LOCKED, 10],
  ])(
    "and is %s after a live switch is undone, but never denied for it",
    async (_, outcome, runs) => {
      const { host } = await switched("boot 2", times(runs * 8, outcome));
      for (let tries = 0; tries < 7; tries++) await tick(host.tools, { insistence: "retry" });
      expect(host.record).toMatchObject({
        state: { name: "Failed", undone: 8, gaveUp: true },
        denied: [],
      });
    },
  );

  test.each<[string, SwitchOutcome[], string, boolean]>([
    ["failed", [{ exitCode: 1 }], "ACTIVATION_FAILED", true],
    ["was ended", [{ exitCode: null }], "ACTIVATION_INTERRUPTED", false],
    ["was locked out", times(10, LOCKED), "SWITCH_LOCKED", false],
  ])("that %s goes back", async (_, outcomes, expected, denied) => {
    const { host, code, message } = await switched("boot 2", outcomes);
    expect(code).toBe(expected);
    expect(message).toMatch(/^switch-to-configuration boot: /);
    expect(host.record?.denied).toHaveLength(denied ? 1 : 0);
    expect(host.events.slice(-3)).toEqual([
      denied ? "ActivationRejected" : "ActivationInterrupted",
      "RollbackSucceeded",
      "LeftoversRemoved",
    ]);
    expect([host.profile, host.running]).toEqual([system("1"), system("1")]);
  });

  test("that asks for a reboot is no failure", async () => {
    expect((await switched("boot 2", [{ exitCode: 100 }])).updated).toBe(true);
  });

  test("must be there in the end", async () => {
    const { host, code, message } = await switched("boot 2", [{ exitCode: 0 }], {
      change: (it) => {
        it.nextSwitch("boot 2");
        const outcomes = it.switches.get("boot 2") ?? [];
        outcomes.splice(0, 1, {
          exitCode: 0,
          meanwhile: () => {
            it.generation = 1;
          },
        });
      },
    });
    expect(code).toBe("HEALTH_FAILED");
    expect(message).toBe(`the system profile: expected ${system("2")}, found ${system("1")}`);
    expect(host.record?.denied).toHaveLength(1);
  });

  test("switches again to a system that a power cut took away", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.fault("boot 2", "INTERRUPTED", "ended");
    await tick(host.tools, PATIENT);
    expect(host.record?.state.name).toBe("Committing");
    host.boot(system("1"));
    host.takeCalls();
    await tick(host.tools, PATIENT);
    // The profile is set already.
    expect(host.takeCalls().slice(0, 2)).toEqual(["switch 2", "[Committed]"]);
    expect(host.running).toBe(system("2"));
  });
});

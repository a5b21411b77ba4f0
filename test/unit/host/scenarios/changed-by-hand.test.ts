import { describe, expect, test } from "vitest";
import type { StateName } from "../../../../agent/core/update/states.ts";
import { passDeadline } from "../../../../agent/host/pass-deadline.ts";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;

/** What a person does with `nixos-rebuild`: system 9 becomes the boot default, runs, or both. */
function rebuild(host: MemoryHost, action: "switch" | "boot" | "test", name = "9"): void {
  if (action !== "test") {
    const next = Math.max(...host.generations.keys()) + 1;
    host.generations.set(next, system(name));
    host.generation = next;
    host.bootDefault = system(name);
  }
  if (action !== "boot") host.running = system(name);
}

/** Where the agent is stopped: at a call, in a state. */
const STOPS: readonly (readonly [StateName, string])[] = [
  ["Staged", "arm deadline"],
  ["Activating", "test 2"],
  ["Verifying", "check website"],
  ["Committing", "boot 2"],
];

/** A host whose agent was stopped at a call while it brought in release 7. */
async function stoppedHost(at: string, config: object = {}): Promise<MemoryHost> {
  const check = { name: "website", kind: "http", url: "http://localhost/" };
  const host = new MemoryHost({
    health: { settle: "1s", interval: "1s", timeout: "3s", checks: [check] },
    ...config,
  });
  host.publish({ sequence: 7, system: "2" });
  host.fault(at, "INTERRUPTED", "stopped");
  await tick(host.tools, PATIENT);
  return host;
}

/** What a host is, for one look. */
function shape({ running, profile, bootDefault }: MemoryHost): (string | null)[] {
  return [running, profile, bootDefault];
}

describe("a switch that a person makes by hand while the agent is away", () => {
  test.each(STOPS)("in %s is said, left alone and not denied", async (state, at) => {
    const host = await stoppedHost(at);
    expect(host.record?.state.name).toBe(state);
    rebuild(host, "switch");
    await tick(host.tools, PATIENT);
    expect(shape(host)).toEqual([system("9"), system("9"), system("9")]);
    expect(host.deadline).toBeNull();
    expect(host.record).toMatchObject({
      ...{ committed: null, denied: [] },
      state: { name: "Failed", gaveUp: true, reason: { code: "CHANGED_BY_HAND" } },
    });
    expect(host.logged.at(-1)).toMatch(/^warn: CHANGED_BY_HAND: somebody .*9.*left as it is$/);
    // The drift policy `keep`: until a person, or another release, leads on.
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "backoff" } });
    host.publish({ sequence: 8, system: "3" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
  });

  test.each(STOPS)("in %s gives way to the release if the policy is revert", async (_, at) => {
    const host = await stoppedHost(at, { drift: "revert" });
    rebuild(host, "switch");
    expect((await tick(host.tools, PATIENT)).updated).toBe(true);
    expect(host.events).toContain("ChangedByHand");
    expect(shape(host)).toEqual([system("2"), system("2"), system("2")]);
  });

  test.each(STOPS)("in %s is not undone by the deadline", async (_, at) => {
    const host = await stoppedHost(at);
    rebuild(host, "switch");
    await passDeadline(host.tools, system("2"));
    expect(shape(host)).toEqual([system("9"), system("9"), system("9")]);
    expect(host.record?.denied).toEqual([]);
  });

  test.each(["Activating", "Verifying"] as const)(
    "is no reason to take the agent's ends in %s for a loop",
    async (state) => {
      const host = await stoppedHost(state === "Activating" ? "test 2" : "check website");
      const { record } = host;
      if (record?.state.name !== state) throw new Error("expected another state");
      host.record = { ...record, state: { ...record.state, restarts: 20 } };
      rebuild(host, "switch");
      await tick(host.tools, PATIENT);
      expect(host.running).toBe(system("9"));
      expect(host.record.denied).toEqual([]);
    },
  );

  test("by `nixos-rebuild test` is left running, and a proven release is committed beside it", async () => {
    const host = await stoppedHost("boot 2");
    rebuild(host, "test");
    expect((await tick(host.tools, PATIENT)).decision).toEqual({
      kind: "drifted",
      found: system("9"),
    });
    expect(shape(host)).toEqual([system("9"), system("2"), system("2")]);
    expect(host.history.find(({ event }) => event === "BootDefaultSet")?.message).toMatch(
      /^somebody switched to .*9; that is left running$/,
    );
    expect(host.logged).toContainEqual(
      "warn: CHANGED_BY_HAND: somebody switched to 9; that is left running",
    );
  });

  test("is told from a boot of another system", async () => {
    const host = await stoppedHost("test 2");
    host.boot(system("0"));
    await tick(host.tools, PATIENT);
    expect(host.events).toContain("ActivationInterrupted");
    expect(host.events).not.toContain("ChangedByHand");
  });

  test("is seen after a boot, too", async () => {
    const host = await stoppedHost("test 2");
    host.boot();
    rebuild(host, "switch");
    await tick(host.tools, PATIENT);
    expect(host.running).toBe(system("9"));
    expect(host.events).toContain("ChangedByHand");
  });

  test("is told from the agent's own half-done work", async () => {
    for (const [, at] of STOPS) {
      const host = await stoppedHost(at);
      expect((await tick(host.tools, PATIENT)).record.committed?.toplevel).toBe(system("2"));
    }
  });
});

describe("another boot default that a person chooses while the agent is away", () => {
  test.each([
    ["arm deadline", system("1")],
    ["boot 2", system("2")],
  ])("ends the release, at %s", async (at, running) => {
    const host = await stoppedHost(at);
    rebuild(host, "boot");
    await tick(host.tools, PATIENT);
    expect(host.record?.state).toMatchObject({ reason: { code: "CHANGED_BY_HAND" } });
    expect(shape(host)).toEqual([running, system("9"), system("9")]);
  });

  test("leaves a half-done release to the agent, which leads it back", async () => {
    const host = await stoppedHost("test 2");
    rebuild(host, "boot");
    host.nextSwitch("test 2", { exitCode: 17, moves: true });
    host.takeCalls();
    await tick(host.tools, PATIENT);
    expect(host.takeCallsFrom("[RollingBack]").slice(0, 3)).toEqual([
      "[RollingBack]",
      "test 1",
      "[Failed]",
    ]);
    expect(shape(host)).toEqual([system("1"), system("9"), system("9")]);
    expect(host.deadline).toBeNull();
    expect(host.record?.denied).toMatchObject([{ toplevel: system("2") }]);
  });
});

describe("a switch that a person makes by hand while the agent waits for its lock", () => {
  test.each(["test 2", "boot 2"])("at %s is not undone afterwards", async (run) => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch(run, {
      exitCode: 11,
      meanwhile: () => {
        rebuild(host, "switch");
      },
    });
    expect((await tick(host.tools, PATIENT)).error?.code).toBe("CHANGED_BY_HAND");
    expect(host.calls.filter((call) => call === run)).toHaveLength(1);
    expect(shape(host)).toEqual([system("9"), system("9"), system("9")]);
    expect(host.record?.denied).toEqual([]);
  });

  test("in mode boot keeps its boot default", async () => {
    for (const cannotTry of ["no loader", null]) {
      const host = new MemoryHost();
      host.cannotTry = cannotTry;
      host.publish({ sequence: 7, system: "2", mode: "boot" });
      const run = cannotTry === null ? "boot 1" : "boot 2";
      host.nextSwitch(run, {
        exitCode: 11,
        meanwhile: () => {
          rebuild(host, "switch");
        },
      });
      expect((await tick(host.tools, PATIENT)).error?.code).toBe("CHANGED_BY_HAND");
      expect(shape(host)).toEqual([system("9"), system("9"), system("9")]);
      expect(host.oneShot).toBeNull();
    }
  });

  test("gets its boot default back if the agent's installer came last", async () => {
    for (const cannotTry of ["no loader", null]) {
      const host = new MemoryHost();
      host.cannotTry = cannotTry;
      host.publish({ sequence: 7, system: "2", mode: "boot" });
      const run = cannotTry === null ? "boot 1" : "boot 2";
      host.nextSwitch(run, {
        exitCode: 0,
        meanwhile: () => {
          rebuild(host, "switch");
        },
      });
      await tick(host.tools, PATIENT);
      expect(host.calls).toContain("boot 9");
      expect(shape(host)).toEqual([system("9"), system("9"), system("9")]);
    }
  });

  test("by `nixos-rebuild test` at the commit is said", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("boot 2", {
      exitCode: 11,
      meanwhile: () => {
        rebuild(host, "test");
      },
    });
    await tick(host.tools, PATIENT);
    expect(shape(host)).toEqual([system("9"), system("2"), system("2")]);
    expect(host.logged).toContainEqual(
      "warn: CHANGED_BY_HAND: somebody switched to 9; that is left running",
    );
  });
});

describe("a person who mends a host whose way back is barred", () => {
  /** A host that release 7 failed on, and whose way back fails. */
  async function barredHost(config: object = {}): Promise<MemoryHost> {
    const host = new MemoryHost(config);
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", { exitCode: 17, moves: true });
    host.nextSwitch("switch 1", { exitCode: 17 });
    host.nextSwitch("boot 1", { exitCode: 1 });
    await tick(host.tools, PATIENT);
    expect(host.record?.state.name).toBe("RollingBack");
    host.takeCalls();
    return host;
  }

  test("by `nixos-rebuild switch` is left alone, and the denial stays", async () => {
    const host = await barredHost();
    rebuild(host, "switch");
    await tick(host.tools, PATIENT);
    expect(host.takeCalls().filter((call) => /^(switch|boot|test|restore)/.test(call))).toEqual([]);
    expect(shape(host)).toEqual([system("9"), system("9"), system("9")]);
    expect(host.record).toMatchObject({
      denied: [{ toplevel: system("2"), reason: { code: "ACTIVATION_FAILED" } }],
      state: { name: "Idle" },
    });
    expect(host.events).toContain("ChangedByHand");
  });

  test("by `nixos-rebuild test` keeps what runs; profile and boot default go back", async () => {
    const host = await barredHost();
    rebuild(host, "test");
    host.bootDefault = system("2");
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toContain("boot 1");
    expect(shape(host)).toEqual([system("9"), system("1"), system("1")]);
  });

  test("by `nixos-rebuild boot` keeps the boot default; what runs goes back", async () => {
    const host = await barredHost();
    rebuild(host, "boot");
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toContain("test 1");
    expect(shape(host)).toEqual([system("1"), system("9"), system("9")]);
  });

  test("while the way back waits for the lock is left alone", async () => {
    const host = await barredHost();
    host.nextSwitch("switch 1", {
      exitCode: 11,
      meanwhile: () => {
        rebuild(host, "switch");
      },
    });
    await tick(host.tools, PATIENT);
    expect(shape(host)).toEqual([system("9"), system("9"), system("9")]);
    expect(host.events).toContain("ChangedByHand");
  });
});

describe("a rollback by hand that did not come to its end", () => {
  test("gives way to another system that a person switches to meanwhile", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    host.nextSwitch("switch 1", { exitCode: 17 });
    await rejectionOf(rollBackByHand(host.tools, null));
    rebuild(host, "switch");
    host.takeCalls();
    await tick(host.tools, PATIENT);
    expect(shape(host)).toEqual([system("9"), system("9"), system("9")]);
    expect(host.takeCalls()).not.toContain("switch 1");
    expect(host.history.find(({ event }) => event === "ChangedByHand")?.message).toMatch(
      /somebody made .*9 the boot default while this host was rolled back to .*1; it is left/,
    );
    expect(host.record?.denied).toMatchObject([{ toplevel: system("2") }]);
  });
});

import { describe, expect, test } from "vitest";
import { bootVerdict } from "../../../../agent/host/boot-verdict.ts";
import { passDeadline } from "../../../../agent/host/pass-deadline.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";
import { rejectionOf } from "../../../support/failure.ts";

const PATIENT = { insistence: "patient" } as const;

/** A host whose agent was ended right before a call of its update to system 2. */
async function hostEndedAt(call: string, config: object = {}): Promise<MemoryHost> {
  const host = new MemoryHost(config);
  host.publish({ sequence: 7, system: "2" });
  host.fault(call, "INTERRUPTED", "ended");
  await tick(host.tools, PATIENT);
  host.takeCalls();
  return host;
}

describe("the next agent", () => {
  test.each<[string, string, string[]]>([
    ["fetch 2", "Fetching", ["hold pending 2", "fetch 2", "fetched release 7", "[Imported]"]],
    ["hold previous-profile", "Imported", ["hold previous-profile 1", "hold previous-running 1"]],
    [
      "arm deadline",
      "Staged",
      ["hold agent 1", "arm deadline in 3701 s: nixos-pull deadline --system 2"],
    ],
    ["test 2", "Activating", ["test 2", "[Verifying]", "[Committing]"]],
    ["set profile", "Committing", ["set profile 2", "boot 2", "[Committed]"]],
    ["hold current", "Committed", ["hold current 2", "hold previous 1", "disarm deadline"]],
  ])("goes on where the one before was ended: at %s", async (call, state, calls) => {
    const host = await hostEndedAt(call);
    expect(host.record?.state.name).toBe(state);
    await tick(host.tools, PATIENT);
    expect(host.takeCalls().slice(0, calls.length)).toEqual(calls);
    expect(host.record).toMatchObject({ state: { name: "Idle" }, committed: { sequence: 7 } });
    expect([...host.roots.keys()]).toEqual(["current", "previous"]);
  });

  test("says so, and counts that it had to", async () => {
    const host = await hostEndedAt("test 2");
    await tick(host.tools, PATIENT);
    expect(host.logged).toContain("warn: going on where an earlier run stopped, in Activating");
    expect(host.events).toContain("AgentRestarted");
  });

  test("leaves a system in whose activation agents end again and again", async () => {
    const host = await hostEndedAt("test 2");
    for (let restarts = 1; restarts <= 10; restarts++) {
      host.fault("test 2", "INTERRUPTED", "ended");
      await tick(host.tools, PATIENT);
      expect(host.record?.state).toMatchObject({ name: "Activating", restarts });
    }
    await tick(host.tools, PATIENT);
    const message = "the agent was ended 10 times in Activating";
    const event = "ActivationInterrupted";
    expect(host.history).toContainEqual(
      expect.objectContaining({ event, code: "RESTART_LOOP", message }),
    );
    // Somebody may have restarted it so often.
    expect(host.record).toMatchObject({ state: { name: "Failed", undone: 1 }, denied: [] });
    expect(host.takeCalls().slice(0, 2)).toEqual(["[RollingBack]", "switch 1"]);
    expect(host.running).toBe(system("1"));
  });

  test("and in whose examination they do", async () => {
    const host = new MemoryHost({
      health: { checks: [{ kind: "command", name: "web", command: ["/w"] }] },
    });
    host.publish({ sequence: 7, system: "2" });
    for (let restarts = 0; restarts <= 10; restarts++) {
      host.fault("check web", "INTERRUPTED", "ended");
      await tick(host.tools, PATIENT);
      expect(host.record?.state).toMatchObject({ name: "Verifying", restarts });
    }
    await tick(host.tools, PATIENT);
    const message = "the agent was ended 10 times in Verifying";
    const event = "ActivationInterrupted";
    expect(host.history).toContainEqual(
      expect.objectContaining({ event, code: "RESTART_LOOP", message }),
    );
    // Somebody may have restarted it so often.
    expect(host.record).toMatchObject({ state: { name: "Failed", undone: 1 }, denied: [] });
  });

  test("does not count that against a commit", async () => {
    const host = await hostEndedAt("set profile");
    for (let times = 0; times < 12; times++) {
      host.fault("set profile", "INTERRUPTED", "ended");
      await tick(host.tools, PATIENT);
    }
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({ denied: [], committed: { sequence: 7 } });
  });

  test("undoes a switch that a reboot cut off", async () => {
    const host = await hostEndedAt("test 2");
    host.boot(system("1"));
    host.takeCalls();
    await tick(host.tools, PATIENT);
    expect(host.takeCalls().slice(0, 3)).toEqual(["[RollingBack]", "switch 1", "[RolledBack]"]);
    expect(host.history).toContainEqual(
      expect.objectContaining({
        ...{ event: "ActivationInterrupted", code: "ACTIVATION_INTERRUPTED" },
        message: "the host went down meanwhile",
      }),
    );
    expect(host.record).toMatchObject({ state: { name: "Failed", attempts: 1 }, denied: [] });
  });

  test("of the new system proves it, if that brings another agent", async () => {
    const host = new MemoryHost();
    host.successor = { differs: true, hasUnit: true };
    host.publish({ sequence: 7, system: "2" });
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome.error).toMatchObject({
      ...{ code: "INTERRUPTED", message: "making way for the new system's agent" },
    });
    expect(host.record?.state).toMatchObject({ name: "Verifying", afterBoot: false });
    expect(host.takeCallsFrom("test 2")).toEqual(["test 2", "[Verifying]", "prove agent of 2"]);
    host.successor = { differs: false, hasUnit: true };
    await tick(host.tools, PATIENT);
    expect(host.record?.committed).toMatchObject({ sequence: 7 });
  });

  test("is started by a person's agent, which then judges all the same", async () => {
    const host = new MemoryHost();
    host.successor = { differs: true, hasUnit: true };
    host.publish({ sequence: 7, system: "2" });
    const outcome = await tick({ ...host.tools, isService: false }, PATIENT);
    expect(outcome.updated).toBe(true);
    expect(host.takeCallsFrom("prove agent of 2").slice(0, 3)).toEqual([
      "prove agent of 2",
      "restart agent",
      "[Committing]",
    ]);
  });

  test("that does not start, or has no unit", async () => {
    const broken = new MemoryHost();
    broken.successor = { differs: true, hasUnit: true };
    broken.brokenAgents.add(system("2"));
    broken.publish({ sequence: 7, system: "2" });
    expect((await tick(broken.tools, PATIENT)).error?.code).toBe("HEALTH_FAILED");
    expect(broken.running).toBe(system("1"));

    const none = new MemoryHost();
    none.successor = { differs: true, hasUnit: false };
    none.publish({ sequence: 7, system: "2" });
    expect((await tick(none.tools, PATIENT)).updated).toBe(true);
    expect(none.takeCalls()).not.toContain("restart agent");
  });

  test("waits for another process at work", async () => {
    const host = new MemoryHost();
    host.locked.add("update");
    const error = await rejectionOf(tick(host.tools, PATIENT));
    expect(error.code).toBe("AGENT_BUSY");
    expect(error.message).toBe(
      "another nixos-pull is in the middle of an update (/var/lib/nixos-pull/update.lock is " +
        "locked); `nixos-pull status` shows how far it is",
    );
  });
});

describe("the deadline", () => {
  const DEADLINE = "the deadline passed without a commit; taking over from the agent";

  test.each(["arm deadline", "test 2"])("takes back what hangs at %s", async (call) => {
    const host = await hostEndedAt(call);
    const { name = "" } = host.record?.state ?? {};
    await passDeadline(host.tools, system("2"));
    const calls = host.takeCalls();
    expect([calls[0], calls[1], calls.at(-1)]).toEqual([
      "stop agent",
      "[RollingBack]",
      "start agent",
    ]);
    // The host may have been slow, or somebody stopped the agent.
    const message = `still ${name} when the deadline passed`;
    expect(host.record).toMatchObject({
      state: { name: "Failed", undone: 1, reason: { code: "DEADLINE_PASSED", message } },
      denied: [],
    });
    expect(host.logged).toContain(`error: DEADLINE_PASSED: ${DEADLINE}`);
    expect([...host.locked]).toEqual([]);
  });

  test("lets a commit come to its end", async () => {
    const host = await hostEndedAt("set profile");
    await passDeadline(host.tools, system("2"));
    expect(host.record).toMatchObject({ committed: { sequence: 7 }, denied: [] });
  });

  test("of another system, or of a committed one, does nothing", async () => {
    const host = await hostEndedAt("test 2");
    await passDeadline(host.tools, system("3"));
    expect(host.takeCalls()).toEqual([]);
    await tick(host.tools, PATIENT);
    host.takeCalls();
    await passDeadline(host.tools, system("2"));
    expect(host.takeCalls()).toEqual([]);
  });

  test("after a boot takes back a system that no agent proved, and reboots", async () => {
    const host = new MemoryHost({ reboot: { policy: "now", grace: "1s" } });
    host.kernels.set(system("2"), "linux 6");
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    await tick({ ...host.tools }, PATIENT);
    await passDeadline(host.tools, system("2"));
    expect(host.takeCallsFrom("reboot")).toEqual(["reboot"]);
    host.boot();
    await passDeadline(host.tools, system("2"));
    const calls = host.takeCalls();
    expect([calls[0], calls.slice(-2)]).toEqual(["stop agent", ["reboot", "start agent"]]);
    expect(host.events).toContain("RebootNoticed");
    expect(host.record?.pendingReboot).toMatchObject({ wayBack: true, requested: 1 });
    expect(host.record).toMatchObject({
      state: { name: "Failed", reason: { code: "DEADLINE_PASSED" } },
      denied: [],
    });
    await passDeadline(host.tools, system("2"));
    expect(host.takeCalls()).toEqual([]);
  });

  test("that cannot go back throws, and starts the agent all the same", async () => {
    const host = await hostEndedAt("test 2");
    host.running = system("2");
    host.nextSwitch("switch 1", { exitCode: 17 });
    // What cannot be switched to is booted, and that cannot be had either.
    host.nextSwitch("boot 1", { exitCode: 17 });
    const error = await rejectionOf(passDeadline(host.tools, system("2")));
    expect(error.code).toBe("ROLLBACK_FAILED");
    expect(host.takeCalls().at(-1)).toBe("start agent");
  });
});

describe("the verdict on a boot", () => {
  test("is open until the system was judged", async () => {
    const host = new MemoryHost();
    expect(await bootVerdict(host.tools)).toBe("proven");
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    await tick(host.tools, PATIENT);
    expect(await bootVerdict(host.tools)).toBe("proven");
    host.boot();
    expect(await bootVerdict(host.tools)).toBe("open");
    await tick(host.tools, PATIENT);
    expect(await bootVerdict(host.tools)).toBe("proven");
  });
});

import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { confirmRelease, holdHost, unholdHost } from "../../../../agent/host/operator-commands.ts";
import { rollBackByHand } from "../../../../agent/host/roll-back.ts";
import { readStatus } from "../../../../agent/host/report/host-status.ts";
import { passDeadline } from "../../../../agent/host/pass-deadline.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { sampleHost } from "../../../support/sample-release.ts";
import { MemoryHost, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;
const NOW = "2026-02-01T00:00:00.000Z";

/** A host that became release 7, system 2. */
async function updatedHost(config: object = {}): Promise<MemoryHost> {
  const host = new MemoryHost(config);
  host.publish({ sequence: 7, system: "2" });
  await tick(host.tools, PATIENT);
  host.takeCalls();
  host.history = [];
  return host;
}

describe("a hold", () => {
  test("is kept, noted, and ends", async () => {
    const host = await updatedHost();
    const until = "2026-02-02T00:00:00.000Z";
    const at = host.time.now().toISOString();
    const hold = { at, until, reason: "audit" };
    expect(await holdHost(host.tools, { until, reason: "audit" })).toEqual(hold);
    expect(host.hold).toEqual({ kind: "held", hold });
    host.history.push({ at, event: "Filler", state: "Idle" });
    await holdHost(host.tools, { until: null, reason: null });
    expect(await unholdHost(host.tools)).toBe(true);
    expect(await unholdHost(host.tools)).toBe(false);
    expect(host.history.slice(1)).toEqual([
      { at, event: "Held", state: "Idle", message: "" },
      { at, event: "HoldEnded", state: "Idle" },
    ]);
  });

  test("is noted with its end and reason", async () => {
    const host = await updatedHost();
    const at = host.time.now().toISOString();
    host.history.push({ at, event: "Filler", state: "Idle" });
    await holdHost(host.tools, { until: "2026-02-02T00:00:00.000Z", reason: "audit" });
    expect(host.history.at(-1)).toEqual({
      ...{ at, event: "Held", state: "Idle" },
      message: "until 2026-02-02T00:00:00.000Z: audit",
    });
  });

  test("for an hour lasts an hour, though the clock was two months ahead when it was made", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.time.set("2026-04-01T00:00:00.000Z");
    const until = "2026-04-01T01:00:00.000Z";
    await holdHost(host.tools, { until, lasts: 60 * 60_000, reason: null });
    host.time.set(NOW);
    expect((await tick(host.tools, PATIENT)).decision?.kind).toBe("waiting");
    expect(host.hold).toMatchObject({ hold: { at: NOW, until: "2026-02-01T01:00:00.000Z" } });
    host.time.advance(60 * 60_000);
    await tick(host.tools, PATIENT);
    expect(host.running).toBe(system("2"));
  });

  test("keeps releases away, and is not noted on a host without a history", async () => {
    const host = new MemoryHost();
    await holdHost(host.tools, { until: "2026-02-01T01:00:00.000Z", reason: null });
    expect(host.history).toEqual([]);
    host.publish({ sequence: 7, system: "2" });
    expect(await tick(host.tools, { insistence: "again" })).toMatchObject({
      decision: { kind: "waiting", waits: [{ reason: "HELD" }] },
    });
    expect(host.takeCalls()).toEqual([]);
    expect((await readStatus(host.tools)).hold.kind).toBe("held");
    host.time.advance(3_600_000);
    expect((await readStatus(host.tools)).hold.kind).toBe("none");
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
  });
});

describe("a confirmation", () => {
  const config = { activation: { confirm: "required" } };

  async function waitingHost(): Promise<MemoryHost> {
    const host = new MemoryHost(config);
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    return host;
  }

  test("lets the release that waits go on", async () => {
    const host = await waitingHost();
    expect(host.record?.state.name).toBe("Imported");
    const confirmed = await confirmRelease(host.tools, "7");
    expect(confirmed).toEqual({
      ...{ at: NOW, sequence: 7, toplevel: system("2"), mode: "switch" },
      digest: host.record?.trust[0]?.digest,
    });
    expect(host.history.at(-1)).toEqual({
      ...{ at: NOW, event: "ReleaseConfirmed", state: "Imported" },
      ...{ sequence: 7, toplevel: system("2"), mode: "switch" },
    });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
  });

  test("is of the release that is under way, if no poll says what waits", async () => {
    const host = await waitingHost();
    host.files.clear();
    expect(await confirmRelease(host.tools, undefined)).toMatchObject({ sequence: 7 });
  });

  test("must name the release that waits", async () => {
    const host = await waitingHost();
    const error = await rejectionOf(confirmRelease(host.tools, "8"));
    const digest = host.record?.trust[0]?.digest ?? "";
    expect([error.code, error.message]).toEqual([
      "NOTHING_TO_CONFIRM",
      `expected the release that waits, 7 with digest ${digest}, found 8`,
    ]);
    expect(host.confirmation).toBeNull();
  });

  test("needs something that waits, and a host that asks for it", async () => {
    const idle = new MemoryHost(config);
    expect((await rejectionOf(confirmRelease(idle.tools, undefined))).message).toBe(
      "no release waits here; `nixos-pull check` says what there is",
    );
    const lost = new MemoryHost(config);
    lost.stateLoss = new PullError("STATE_LOST", "gone");
    expect((await rejectionOf(confirmRelease(lost.tools, undefined))).code).toBe(
      "NOTHING_TO_CONFIRM",
    );
    const free = await updatedHost();
    expect((await rejectionOf(confirmRelease(free.tools, undefined))).message).toBe(
      "this host asks for no confirmation: activation.confirm is none",
    );
  });
});

describe("a rollback by hand", () => {
  test("goes to the generation before, and denies what it leaves", async () => {
    const host = await updatedHost({ hooks: { postRollback: ["/back"] } });
    expect(await rollBackByHand(host.tools, null)).toEqual({
      generation: 1,
      toplevel: system("1"),
      needsReboot: false,
    });
    expect(host.takeCalls()).toEqual([
      "hold chosen 1",
      "[Reverting]",
      "restore generation 1",
      "switch 1",
      "release chosen",
      "disarm boot deadline",
      "abandon fetch",
      "hook /back",
      "[Idle]",
    ]);
    const at = host.time.now().toISOString();
    const message = `rolled back by hand from ${system("2")} to ${system("1")}`;
    expect(host.history).toEqual([
      {
        ...{ at, event: "RevertBegun", state: "Reverting", toplevel: system("1") },
        ...{ code: "RELEASE_DENIED", message },
      },
      {
        ...{ at, event: "RevertSucceeded", state: "Idle", toplevel: system("1") },
        lastLines: ["switch 1 ran"],
      },
    ]);
    expect(host.record).toMatchObject({
      committed: null,
      denied: [{ toplevel: system("2"), reason: { message } }],
    });
    expect(host.hooks.at(-1)?.variables).toMatchObject({
      ...{ NIXOS_PULL_RESULT: "reverted", NIXOS_PULL_RELEASE: "" },
      ...{ NIXOS_PULL_TOPLEVEL: system("1"), NIXOS_PULL_PREVIOUS: system("2") },
    });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "denied" } });
    // A person who insists gets it back, and that ends the denial.
    expect(await tick(host.tools, { insistence: "again" })).toMatchObject({
      ...{ updated: true, record: { denied: [] } },
    });
  });

  test("is refused without something to go to", async () => {
    const host = await updatedHost();
    const refused = async (generation: number | null): Promise<string[]> => {
      const { code, message } = await rejectionOf(rollBackByHand(host.tools, generation));
      return [code, message];
    };
    expect(await refused(9)).toEqual([
      "NOTHING_TO_ROLL_BACK",
      "the system profile has no generation 9",
    ]);
    expect(await refused(2)).toEqual(["NOTHING_TO_ROLL_BACK", "generation 2 is the current one"]);
    host.unswitchable.add(system("1"));
    expect(await refused(null)).toEqual([
      "NOT_A_SYSTEM",
      `${system("1")} has no bin/switch-to-configuration`,
    ]);
    host.generations.delete(1);
    host.roots.delete("previous");
    expect(await refused(null)).toEqual([
      "NOTHING_TO_ROLL_BACK",
      "the system profile has no generation before the current one",
    ]);
    expect(host.history).toEqual([]);
  });

  test("that fails is tried again, or another generation is chosen", async () => {
    const host = await updatedHost();
    host.generations.set(3, system("0"));
    host.nextSwitch("switch 1", { exitCode: 2 }, { exitCode: 2 });
    const error = await rejectionOf(rollBackByHand(host.tools, 1));
    const message = `${system("1")}: it ended with exit code 2 (the activation script failed, or a file was missing), but ${system("2")} runs`;
    expect([error.code, error.message]).toEqual(["ROLLBACK_FAILED", message]);
    expect(host.record?.state).toMatchObject({ name: "Reverting", failures: 1 });
    expect(host.history.at(-1)).toMatchObject({ event: "RevertFailed", message });
    host.takeCalls();
    await rollBackByHand(host.tools, 3);
    expect(host.takeCalls().slice(0, 5)).toEqual([
      "switch 1",
      "hold chosen 0",
      "restore generation 3",
      "switch 0",
      "release chosen",
    ]);
    expect(host.record?.state).toEqual({ name: "Idle" });
  });

  test("that only a reboot completes says so", async () => {
    const host = await updatedHost();
    host.nextSwitch("switch 1", { exitCode: 100 });
    await rollBackByHand(host.tools, null);
    expect(host.logged.at(-1)).toBe("warn: 1 takes effect with a reboot");
  });

  test("finishes first what was begun", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.fault("hold current", "INTERRUPTED", "ended");
    await tick(host.tools, PATIENT);
    host.takeCalls();
    await rollBackByHand(host.tools, null);
    expect(host.takeCalls()[0]).toBe("hold current 2");
    expect(host.running).toBe(system("1"));
  });
});

describe("a host that was changed by hand", () => {
  test("is left alone, whatever waits for it", async () => {
    const host = await updatedHost();
    host.running = system("9");
    host.generations.set(3, system("9"));
    host.generation = 3;
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      decision: { kind: "drifted", found: system("9") },
    });
    expect((await readStatus(host.tools)).drift).toEqual({
      ...{ what: "profile", expected: system("2"), found: system("9") },
    });
    expect(await tick(host.tools, { insistence: "again" })).toMatchObject({ updated: true });
  });

  test("becomes the release again if the policy says so", async () => {
    const host = await updatedHost({ drift: "revert" });
    host.running = system("9");
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
    expect(host.running).toBe(system("2"));
  });

  test("and whose release was begun again forgets that", async () => {
    const host = await updatedHost();
    host.publish({ sequence: 8, system: "3" });
    host.fault("fetch 3", "MIRROR_STALLED");
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 9, system: "2" });
    host.running = system("9");
    await tick(host.tools, PATIENT);
    expect(host.history.at(-1)).toMatchObject({
      ...{ event: "ReleaseWithdrawn", message: "release 9 is drifted" },
    });
  });
});

describe("a host whose record is lost", () => {
  test("follows nothing until a person accepts that", async () => {
    const host = new MemoryHost();
    host.stateLoss = new PullError("STATE_LOST", "gone");
    host.publish({ sequence: 7, system: "2" });
    expect((await rejectionOf(tick(host.tools, PATIENT))).code).toBe("STATE_LOST");
    expect([...host.locked]).toEqual([]);
    const accepted = { insistence: "retry", acceptStateLoss: true } as const;
    expect(await tick(host.tools, accepted)).toMatchObject({ updated: true });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ error: null });
  });
});

describe("a pending reboot", () => {
  const kernel = async (config: object): Promise<MemoryHost> => {
    const host = new MemoryHost(config);
    host.kernels.set(system("2"), "linux 6");
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    return host;
  };
  const SLOTS = { url: "https://locks.example.org/", group: "web" };

  test("comes after its grace, and no more than three times", async () => {
    const host = await kernel({ reboot: { policy: "now", grace: "5m" } });
    expect(host.takeCallsFrom("reboot")).toEqual(["reboot"]);
    expect(host.time.steadyMs()).toBe(301_000);
    expect(host.logged.at(-1)).toBe("warn: rebooting for release 7 in 5m");
    await tick(host.tools, PATIENT);
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toEqual(["reboot", "reboot"]);
    const { error } = await tick(host.tools, PATIENT);
    expect([error?.code, error?.message]).toEqual([
      "REBOOT_LOOP",
      "release 7: a reboot was asked for 3 times and did not come",
    ]);
    expect(host.takeCalls()).toEqual([]);
  });

  test("waits for a slot that is refused, and takes it in its window", async () => {
    const window = { cron: "0 2 * * *", duration: "2h" };
    const host = await kernel({
      ...{ maintenance: { jitter: "0s" } },
      reboot: { policy: "window", window, grace: "1s", fleetLock: SLOTS },
    });
    expect(host.takeCalls()).not.toContain("take reboot slot");
    host.time.set("2026-02-01T02:30:00.000Z");
    host.rebootSlot = "refused";
    expect((await tick(host.tools, PATIENT)).error?.code).toBe("REBOOT_REFUSED");
    // It may hold one all the same: what nobody knows of would be held for ever.
    expect(host.record?.holdsRebootSlot).toBe(true);
    expect(host.takeCalls()).toEqual(["take reboot slot"]);
    host.rebootSlot = "free";
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toEqual(["take reboot slot", "reboot"]);
    expect(host.events.filter((event) => event === "RebootSlotTaken")).toHaveLength(1);
    host.boot();
    host.takeCalls();
    await tick(host.tools, PATIENT);
    expect(host.takeCalls().at(-1)).toBe("give reboot slot back");
    expect(host.record).toMatchObject({ holdsRebootSlot: false, pendingReboot: null });
  });

  test("is called off by a hold during its grace, and gives its slot back", async () => {
    const host = new MemoryHost({ reboot: { policy: "now", grace: "5m", fleetLock: SLOTS } });
    host.kernels.set(system("2"), "linux 6");
    host.publish({ sequence: 7, system: "2" });
    void host.time.sleep(60_000).then(() => holdHost(host.tools, { until: null, reason: null }));
    await tick(host.tools, PATIENT);
    expect(host.takeCallsFrom("take reboot slot")).toEqual([
      "take reboot slot",
      "give reboot slot back",
    ]);
    expect(host.record).toMatchObject({ holdsRebootSlot: false, pendingReboot: { requested: 0 } });
    expect(host.logged.at(-1)).toBe("info: HELD: a reboot is pending, but this host is held");
  });

  test("keeps a slot that cannot be given back, and says so", async () => {
    const host = await kernel({ reboot: { policy: "now", grace: "1s", fleetLock: SLOTS } });
    host.boot();
    host.rebootSlot = "unreachable";
    await tick(host.tools, PATIENT);
    expect(host.logged.at(-1)).toBe(
      "warn: MIRROR_UNREACHABLE: the reboot slot is still held: gone",
    );
    expect(host.record?.holdsRebootSlot).toBe(true);
    host.rebootSlot = "taken";
    await tick(host.tools, PATIENT);
    expect(host.record?.holdsRebootSlot).toBe(false);
  });
});

describe("a switch that a person makes by hand while a release is judged", () => {
  /** A host on which somebody switches to system 9 while release 7 is judged. */
  function changedHost(config: object = {}): MemoryHost {
    const check = { name: "website", kind: "http", url: "http://localhost/" };
    const host = new MemoryHost({
      ...config,
      health: { settle: "1s", interval: "1s", timeout: "3s", checks: [check] },
    });
    host.publish({ sequence: 7, system: "2" });
    const { tools } = host;
    const probe: typeof tools.probe = async () => {
      host.running = system("9");
      throw new PullError("HEALTH_FAILED", "not yet");
    };
    Object.assign(tools, { probe });
    return host;
  }

  test("is left alone and said, and neither undone nor denied", async () => {
    const host = changedHost();
    const { error } = await tick(host.tools, PATIENT);
    expect(error?.code).toBe("CHANGED_BY_HAND");
    expect(host.running).toBe(system("9"));
    expect(host.deadline).toBeNull();
    expect(host.record).toMatchObject({
      ...{ committed: null, denied: [] },
      state: { name: "Failed", gaveUp: true, reason: { code: "CHANGED_BY_HAND" } },
    });
    expect(host.history.at(-1)).toMatchObject({
      ...{ event: "ChangedByHand", code: "CHANGED_BY_HAND" },
      message: expect.stringMatching(/switched to .*-9 while release 7 .*left as it is/) as string,
    });
    host.takeCalls();
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      decision: { kind: "backoff", until: null, reason: { code: "CHANGED_BY_HAND" } },
    });
    expect(host.takeCalls()).toEqual([]);
  });

  test("ends with the release if the drift policy says so, or a person", async () => {
    for (const [config, insistence] of [
      [{ drift: "revert" }, "patient"],
      [{}, "retry"],
    ] as const) {
      const host = changedHost(config);
      await tick(host.tools, PATIENT);
      const tools = { ...host.tools, probe: async () => undefined };
      expect(await tick(tools, { insistence })).toMatchObject({ updated: true });
      expect(host.running).toBe(system("2"));
    }
  });

  test("is not undone by the deadline either", async () => {
    const host = changedHost();
    const stopped = {
      ...host.tools,
      probe: async () => {
        throw host.interrupted;
      },
    };
    await tick(stopped, PATIENT);
    expect(host.record?.state.name).toBe("Verifying");
    host.running = system("9");
    await passDeadline(host.tools, system("2"));
    expect(host.running).toBe(system("9"));
    expect(host.record?.state).toMatchObject({ name: "Failed", gaveUp: true });
  });

  test("is told from a trial that did not come up", async () => {
    const host = changedHost();
    host.cannotTry = null;
    host.kernels.set(system("2"), "linux 2");
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    await tick(host.tools, PATIENT);
    host.boot();
    await tick(host.tools, PATIENT);
    expect(host.record).toMatchObject({
      denied: [],
      state: { reason: { code: "CHANGED_BY_HAND" } },
    });
  });
});

describe("a host's name", () => {
  test("is never another host's: the system is refused before anything is touched", async () => {
    const host = new MemoryHost();
    host.names.set(system("2"), "db1");
    host.publish({ sequence: 7, system: "2" });
    const { error } = await tick(host.tools, PATIENT);
    expect(error).toMatchObject({ code: "HOSTNAME_MISMATCH" });
    expect(host.running).toBe(system("1"));
    expect(host.events).not.toContain("BaselineRecorded");
    expect(host.record).toMatchObject({ denied: [], state: { name: "Failed" } });
    host.names.set(system("3"), "web1");
    host.publish({ sequence: 8, system: "3" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
  });

  test.each([
    ["is in no release leads back", {}, "HEALTH_UNBLAMED"],
    ["is another host's leads back", { db1: sampleHost() }, "HEALTH_UNBLAMED"],
    [
      "names the same system is followed on",
      { db1: sampleHost({ toplevel: system("2") }) },
      undefined,
    ],
  ])("that the new system changes and that %s", async (_, others, code) => {
    const host = new MemoryHost();
    const hosts = { web1: sampleHost({ toplevel: system("2") }), ...others };
    host.publish({ sequence: 7, system: "2", hosts });
    const meanwhile = (): void => {
      host.name = "db1";
    };
    host.nextSwitch("test 2", { exitCode: 0, meanwhile });
    const { error } = await tick(host.tools, PATIENT);
    expect(error?.code).toBe(code);
    expect(host.running).toBe(system(code === undefined ? "2" : "1"));
  });
});

import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { check } from "../../../../agent/host/check.ts";
import { tick } from "../../../../agent/host/tick.ts";
import { MemoryHost, shortened, system } from "../../../support/memory-host.ts";

const PATIENT = { insistence: "patient" } as const;

describe("a release in mode switch", () => {
  test("is fetched, proven, made the boot default and remembered", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    const outcome = await tick(host.tools, PATIENT);
    expect(outcome).toMatchObject({ updated: true, error: null, decision: { kind: "update" } });
    expect(host.takeCalls()).toEqual([
      "[Candidate]",
      "[Fetching]",
      "hold pending 2",
      "fetch 2",
      "fetched release 7",
      "[Imported]",
      "hold previous-profile 1",
      "hold previous-running 1",
      "[Staged]",
      "hold agent 1",
      "arm deadline in 3701 s: nixos-pull deadline --system 2",
      "[Activating]",
      "test 2",
      "[Verifying]",
      "[Committing]",
      "set profile 2",
      "boot 2",
      "[Committed]",
      "hold current 2",
      "hold previous 1",
      "disarm deadline",
      "release previous-profile",
      "release previous-running",
      "disarm boot deadline",
      "release agent",
      "release pending",
      "abandon fetch",
      "[Idle]",
    ]);
    expect(host.logged).toEqual([
      "info: release 7: 2, to switch",
      "info: imported 3 new of 10 paths",
      "info: switch-to-configuration test",
      "info: switch-to-configuration boot",
      "info: release 7 is active: 2",
    ]);
    expect(host.record).toEqual({
      formatVersion: 1,
      state: { name: "Idle" },
      trust: [expect.objectContaining({ channel: "stable", sequence: 7 })],
      committed: {
        ...{ channel: "stable", sequence: 7, digest: outcome.release?.digest },
        ...{ toplevel: system("2"), mode: "switch", at: "2026-02-01T00:00:01.000Z" },
        previous: system("1"),
        closureSize: outcome.release?.closureSize,
        archive: outcome.release?.archive,
      },
      denied: [],
      pendingReboot: null,
      holdsRebootSlot: false,
    });
    expect([...host.roots]).toEqual([
      ["current", system("2")],
      ["previous", system("1")],
    ]);
  });

  test("leaves a history of what happened and a report of the poll", async () => {
    const host = new MemoryHost();
    host.summary = { ...host.summary, deltasUsed: 2, deltasFailed: 1 };
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    const at = "2026-02-01T00:00:00.000Z";
    const later = "2026-02-01T00:00:01.000Z";
    const what = { sequence: 7, toplevel: system("2"), mode: "switch" };
    const [trust] = host.record?.trust ?? [];
    expect(host.history).toEqual([
      { at, event: "ManifestAccepted", state: "Idle", sequence: 7, trust, toplevel: system("2") },
      { at, event: "ReleaseAccepted", state: "Candidate", ...what },
      { at, event: "FetchBegun", state: "Fetching", ...what },
      { at, event: "ClosureImported", state: "Imported", ...what, deltas: { used: 2, failed: 1 } },
      { at, event: "BaselineRecorded", state: "Staged", ...what },
      { at, event: "ActivationBegun", state: "Activating", ...what },
      { at, event: "ActivationSucceeded", state: "Verifying", ...what, lastLines: ["test 2 ran"] },
      { at: later, event: "CommitBegun", state: "Committing", ...what },
      {
        at: later,
        event: "BootDefaultSet",
        state: "Committed",
        ...what,
        lastLines: ["boot 2 ran"],
      },
      { at: later, event: "LeftoversRemoved", state: "Idle", ...what },
    ]);
    expect(Object.fromEntries(host.files)).toEqual({
      "poll.json": {
        at: later,
        mirrors: [{ mirror: "https://a.example.org/", sequence: 7, unchanged: false }],
        ...{ decision: "applied", error: null, waits: [] },
        release: { ...what, digest: host.record?.committed?.digest },
        archives: [{ mirror: "https://a.example.org/", at }],
      },
      "counters.json": { polls: 1, pollFailures: 0, updates: 1 },
    });
    expect([...host.locked]).toEqual([]);
    expect([...host.savedManifests.keys()]).toEqual(["stable https://a.example.org/"]);
  });

  test("is left alone once it is active", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    host.takeCalls();
    const events = host.events.length;
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      ...{ updated: false, decision: { kind: "active" }, error: null },
      verdicts: [{ mirror: "https://a.example.org/", sequence: 7, unchanged: true }],
    });
    expect(host.takeCalls()).toEqual([]);
    expect(host.events).toHaveLength(events);
    expect(host.files.get("counters.json")).toEqual({ polls: 2, pollFailures: 0, updates: 1 });
    expect(host.files.get("poll.json")).toMatchObject({
      decision: "active",
      release: { sequence: 7 },
    });
  });

  test("keeps as many generations as the settings say", async () => {
    const host = new MemoryHost({ generations: { keep: 3 } });
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    expect(host.takeCallsFrom("abandon fetch").slice(1)).toEqual([
      "prune generations to 3",
      "[Idle]",
    ]);
  });

  test("on a host without a profile has no system before it", async () => {
    const host = new MemoryHost();
    host.generation = null;
    host.running = null;
    host.roots.set("previous", system("0"));
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    expect(host.record?.committed?.previous).toBeNull();
    expect([...host.roots]).toEqual([["current", system("2")]]);
  });

  test("with another kernel is proven, and a reboot is pending", async () => {
    const host = new MemoryHost();
    host.kernels.set(system("2"), "linux 6");
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    expect(host.takeCallsFrom("[Committing]").slice(0, 5)).toEqual([
      "[Committing]",
      "set profile 2",
      "boot 2",
      "hold agent 1",
      "arm boot deadline of 2",
    ]);
    expect(host.record?.pendingReboot).toEqual({
      release: expect.objectContaining({ sequence: 7, toplevel: system("2") }),
      ...{ wayBack: false, attempts: 0, requested: 0, bootId: "boot 1" },
      baseline: {
        ...{ profile: system("1"), generation: 1, running: system("1") },
        ...{ failedUnits: [], restartedUnits: [], activeUnits: [] },
      },
    });
    expect(host.roots.get("agent")).toBe(system("1"));
    expect(host.logged.at(-1)).toBe("info: release 7 is active: 2; a reboot is needed");
  });

  test("that the host already is asks for nothing but to be remembered", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "1" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({
      ...{ updated: false, decision: { kind: "adopt" } },
      record: { committed: { sequence: 7, previous: null } },
    });
    expect(host.takeCalls()).toEqual(["disarm boot deadline", "abandon fetch"]);
    expect(host.events).toEqual(["ManifestAccepted", "AlreadyActive"]);
  });

  test("that only the settings' mode changes is applied in that mode", async () => {
    const host = new MemoryHost({ activation: { mode: "test" } });
    host.publish({ sequence: 7, system: "2" });
    expect((await tick(host.tools, PATIENT)).release?.mode).toBe("test");
  });
});

describe("the other modes", () => {
  test("test leaves the profile alone", async () => {
    const host = new MemoryHost({ generations: { keep: 3 } });
    host.publish({ sequence: 7, system: "2", mode: "test" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
    expect(host.takeCallsFrom("[Activating]").slice(0, 5)).toEqual([
      "[Activating]",
      "test 2",
      "[Verifying]",
      "[Committed]",
      "hold current 2",
    ]);
    expect([host.profile, host.running]).toEqual([system("1"), system("2")]);
    expect(host.logged).not.toContain("prune generations to 3");
  });

  test("dry-activate changes nothing, and needs no deadline, health or hook", async () => {
    const hooks = { preActivate: ["/pre"], postCommit: ["/post"] };
    const host = new MemoryHost({ hooks });
    host.publish({ sequence: 7, system: "2", mode: "dry-activate" });
    host.units = { failed: ["a.service"], restarts: new Map() };
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
    expect(host.takeCallsFrom("[Staged]").slice(0, 5)).toEqual([
      "[Staged]",
      "[Activating]",
      "dry-activate 2",
      "[Verifying]",
      "[Committed]",
    ]);
    expect([host.profile, host.running, host.hooks]).toEqual([system("1"), system("1"), []]);
  });

  test("boot is proven by the boot, and its agent before that", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    await tick(host.tools, PATIENT);
    expect(host.takeCallsFrom("[Staged]")).toEqual([
      "[Staged]",
      "prove agent of 2",
      "[Committing]",
      "set profile 2",
      "boot 2",
      "hold agent 1",
      "arm boot deadline of 2",
      "[Committed]",
      "hold current 2",
      "hold previous 1",
      "release previous-profile",
      "release previous-running",
      "release pending",
      "abandon fetch",
      "[Idle]",
    ]);
    expect(host.running).toBe(system("1"));
    expect(await tick(host.tools, PATIENT)).toMatchObject({ decision: { kind: "active" } });
    host.boot();
    host.takeCalls();
    expect(await tick(host.tools, PATIENT)).toMatchObject({ record: { pendingReboot: null } });
    expect(host.takeCalls()).toEqual([
      "[Verifying]",
      "[Committed]",
      "hold current 2",
      "hold previous 1",
      "disarm boot deadline",
      "release agent",
      "abandon fetch",
      "[Idle]",
    ]);
    expect(host.events.slice(-4)).toEqual([
      "RebootNoticed",
      "AgentRestarted",
      "HealthConfirmed",
      "LeftoversRemoved",
    ]);
  });

  test("boot with an agent that does not start is refused before the host changes", async () => {
    const host = new MemoryHost();
    host.brokenAgents.add(system("2"));
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    const { error } = await tick(host.tools, PATIENT);
    expect(error).toMatchObject({ code: "HEALTH_FAILED", message: "the agent does not start" });
    expect(host.takeCalls()).not.toContain("set profile 2");
    expect(host.record?.denied).toHaveLength(1);
  });

  test("boot without an agent is a warning", async () => {
    const host = new MemoryHost();
    host.agentless.add(system("2"));
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
    expect(host.logged).toContain(
      "warn: release 7 has no nixos-pull: this host will follow no other",
    );
  });
});

describe("an attempt that fails before the host changes", () => {
  test.each<[string, (host: MemoryHost) => void, string, string]>([
    [
      "has a full boot directory",
      (host) => {
        host.missingBootSpace = { directory: "/boot", needed: 50, free: 20 };
      },
      "DISK_FULL",
      "/boot: expected 50 bytes free for a kernel and initrd, found 20",
    ],
    [
      "is no system",
      (host) => {
        host.unswitchable.add(system("2"));
      },
      "NOT_A_SYSTEM",
      "2: expected an executable bin/switch-to-configuration",
    ],
    [
      "has no profile that can be held",
      (host) => {
        host.fault("hold previous-profile", "IO_FAILED", "no link");
      },
      "IO_FAILED",
      "no link",
    ],
    [
      "cannot arm its deadline",
      (host) => {
        host.fault("arm deadline", "TOOL_MISSING", "no systemd-run");
      },
      "TOOL_MISSING",
      "no systemd-run",
    ],
  ])("because it %s is tried again", async (_, spoil, code, message) => {
    const host = new MemoryHost();
    spoil(host);
    host.publish({ sequence: 7, system: "2" });
    const outcome = await tick(host.tools, PATIENT);
    expect([outcome.error?.code, shortened(outcome.error?.message ?? "")]).toEqual([code, message]);
    expect(host.record).toMatchObject({ state: { name: "Failed", attempts: 1 }, denied: [] });
    expect(host.history.at(-1)).toMatchObject({ event: "AttemptFailed", code });
    expect([host.running, host.profile, host.deadline]).toEqual([system("1"), system("1"), null]);
    expect(host.files.get("counters.json")).toEqual({ polls: 1, pollFailures: 1, updates: 0 });
  });

  test("waits longer and longer, and the whole time at once for what does not mend itself", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    const waits: number[] = [];
    for (const code of ["DISK_FULL", "DISK_FULL", "DISK_FULL", "NOT_A_SYSTEM"] as const) {
      host.fault("fetch 2", code);
      const began = host.time.now().getTime();
      const { record } = await tick(host.tools, { insistence: "retry" });
      waits.push(record.state.name === "Failed" ? Date.parse(record.state.retryAt) - began : 0);
    }
    const { retryMax } = host.settings.limits;
    expect(waits).toEqual([60_000, 120_000, 240_000, retryMax]);
  });
});

describe("hooks", () => {
  const hooks = { preActivate: ["/pre", "x"], postCommit: ["/post"], timeout: "7s" };

  test("run around the activation and are told of it", async () => {
    const host = new MemoryHost({ hooks });
    host.publish({ sequence: 7, system: "2" });
    await tick(host.tools, PATIENT);
    const calls = host.takeCalls();
    expect(calls.slice(calls.indexOf("[Imported]"), calls.indexOf("[Staged]"))).toEqual([
      "[Imported]",
      "hook /pre",
      "hold previous-profile 1",
      "hold previous-running 1",
    ]);
    expect(calls.slice(-3)).toEqual(["abandon fetch", "hook /post", "[Idle]"]);
    const common = {
      NIXOS_PULL_CHANNEL: "stable",
      NIXOS_PULL_RELEASE: "7",
      NIXOS_PULL_DIGEST: host.record?.committed?.digest,
      NIXOS_PULL_MODE: "switch",
      NIXOS_PULL_TOPLEVEL: system("2"),
      NIXOS_PULL_PREVIOUS: system("1"),
      NIXOS_PULL_CODE: "",
      NIXOS_PULL_MESSAGE: "",
      NIXOS_PULL_HOSTNAME: "web1",
    };
    expect(host.hooks).toEqual([
      {
        ...{ command: ["/pre", "x"], timeoutMs: 7_000 },
        variables: { ...common, NIXOS_PULL_HOOK: "preActivate", NIXOS_PULL_RESULT: "" },
      },
      {
        ...{ command: ["/post"], timeoutMs: 7_000 },
        variables: { ...common, NIXOS_PULL_HOOK: "postCommit", NIXOS_PULL_RESULT: "committed" },
      },
    ]);
    expect(host.logged).toContain("info: hook preActivate: /pre x");
  });

  test("before it hold the release back", async () => {
    const host = new MemoryHost({ hooks });
    host.failing.set("/pre", "exit code 3");
    host.publish({ sequence: 7, system: "2" });
    const { error } = await tick(host.tools, PATIENT);
    expect(error).toMatchObject({ code: "HOOK_FAILED", message: "preActivate: exit code 3" });
    expect(host.record?.state).toMatchObject({ name: "Failed", attempts: 1 });
  });

  test("after it are a note in the history", async () => {
    const host = new MemoryHost({ hooks });
    host.kernels.set(system("2"), "linux 6");
    host.failing.set("/post", "exit code 3");
    host.publish({ sequence: 7, system: "2" });
    expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true, error: null });
    expect(host.hooks.at(-1)?.variables["NIXOS_PULL_RESULT"]).toBe("reboot-needed");
    expect(host.history.at(-2)).toEqual({
      ...{ at: "2026-02-01T00:00:01.000Z", event: "HookFailed", state: "Committed", sequence: 7 },
      ...{ mode: "switch", toplevel: system("2") },
      ...{ code: "HOOK_FAILED", message: "postCommit: exit code 3" },
    });
    expect(host.logged).toContain("warn: HOOK_FAILED: postCommit: exit code 3");
  });

  test("after a way back are told why", async () => {
    const host = new MemoryHost({ hooks: { postRollback: ["/back"] } });
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", { exitCode: 2 });
    await tick(host.tools, PATIENT);
    expect(host.hooks.map(({ variables }) => variables)).toEqual([
      expect.objectContaining({
        ...{ NIXOS_PULL_HOOK: "postRollback", NIXOS_PULL_RESULT: "rolled-back" },
        ...{ NIXOS_PULL_CODE: "ACTIVATION_FAILED", NIXOS_PULL_RELEASE: "7" },
        ...{ NIXOS_PULL_TOPLEVEL: system("1"), NIXOS_PULL_PREVIOUS: system("2") },
      }),
    ]);
  });
});

describe("the baseline", () => {
  test("has the units that failed and restarted before", async () => {
    const host = new MemoryHost();
    host.units = { failed: ["old.service"], restarts: new Map([["flaky.service", 3]]) };
    host.publish({ sequence: 7, system: "2", mode: "boot" });
    await tick(host.tools, PATIENT);
    expect(host.record?.pendingReboot?.baseline).toMatchObject({
      failedUnits: ["old.service"],
      restartedUnits: ["flaky.service"],
    });
  });

  test("never is a system that failed here, if the profile has another", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.nextSwitch("test 2", { exitCode: 2 });
    await tick(host.tools, PATIENT);
    host.running = system("2");
    host.publish({ sequence: 8, system: "3" });
    host.takeCalls();
    await tick(host.tools, PATIENT);
    expect(host.takeCalls()).toContain("hold previous-running 1");
  });
});

describe("check", () => {
  test("says what a tick would do, and does nothing", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    const found = await check(host.tools, { insistence: "patient", signal: undefined });
    expect(found).toMatchObject({
      decision: { kind: "update" },
      preview: { paths: 10, newPaths: 3, downloadBytes: 1_000, storeBytes: 3_000 },
      ...{ error: null, drift: null, hold: { kind: "none" }, record: { state: { name: "Idle" } } },
    });
    expect([host.takeCalls(), host.history, [...host.files]]).toEqual([[], [], []]);
  });

  test("says why it would fail now", async () => {
    const host = new MemoryHost();
    host.publish({ sequence: 7, system: "2" });
    host.fetchErrors.push(null);
    await tick(host.tools, PATIENT);
    host.publish({ sequence: 8, system: "3" });
    host.running = system("1");
    const occasion = { insistence: "patient", signal: undefined } as const;
    host.fetchErrors.push(new PullError("DISK_FULL", "no room"));
    const found = await check(host.tools, occasion);
    expect(found).toMatchObject({
      preview: null,
      error: { code: "DISK_FULL", message: "no room" },
    });
    expect(found.drift).toEqual({
      ...{ what: "booted", expected: system("2"), found: system("1") },
    });
    host.publish({ sequence: 9, system: "2" });
    host.running = system("2");
    expect(await check(host.tools, occasion)).toMatchObject({ preview: null, drift: null });
  });
});

test("room for a kernel is asked for beside the generations that pruning will leave", async () => {
  const host = new MemoryHost({ generations: { keep: 3 } });
  host.generations.clear();
  for (const number of [1, 2, 3, 4]) host.generations.set(number, system(`${number}0`));
  host.generation = 2;
  host.publish({ sequence: 7, system: "2" });
  await tick(host.tools, PATIENT);
  // The release is the third of the newest, and what the host goes back to stays.
  expect(host.roomAskedFor).toEqual({
    staying: [system("20"), system("30"), system("40")],
    leaving: [system("10")],
  });
});

test("garbage that was collected to make room stands in the history", async () => {
  const host = new MemoryHost();
  host.publish({ sequence: 7, system: "2" });
  host.collects = { wanted: 500, freed: 600 };
  expect(await tick(host.tools, PATIENT)).toMatchObject({ updated: true });
  expect(host.history.find(({ event }) => event === "GarbageCollected")).toMatchObject({
    ...{ state: "Fetching", sequence: 7, toplevel: system("2") },
    message: "the store had no room: 600 bytes of garbage were collected, for 500",
  });
});

import { expect, test } from "vitest";
import {
  createReleasedHost,
  expectCommitted,
  HELD_SWITCH,
  agentUnit,
  installedProgram,
  service,
  variableOf,
} from "./released-host.ts";

test("a power cut in Activating boots the old system, and the release is tried again", async () => {
  const host = await createReleasedHost();
  await host.hold("switch");
  const second = await host.release({
    generation: "2",
    units: { "web.service": service("2") },
    activationScript: HELD_SWITCH,
  });
  await host.waitFor(
    async () => (await host.currentSystem()) === second,
    "the new system activated",
  );
  expect((await host.record())?.state.name).toBe("Activating");
  await host.powerCut();
  expect(await host.bootDefault()).toBe(host.first);
  await host.letGo("switch");
  await host.boot();
  expect(await host.bootedSystem()).toBe(host.first);
  await expectCommitted(host, second);
  expect(await host.waitForEvent("ActivationInterrupted", second)).toMatchObject({
    code: "ACTIVATION_INTERRUPTED",
  });
  expect(await variableOf(host, "web.service", "VERSION")).toBe("2");
});

test("a power cut in Verifying boots the old system, and the release is tried again", async () => {
  const host = await createReleasedHost();
  await host.hold("health");
  const second = await host.release({ generation: "2", units: { "web.service": service("2") } });
  await host.waitForState("Verifying");
  await host.powerCut();
  expect(await host.bootDefault()).toBe(host.first);
  await host.letGo("health");
  await host.boot();
  expect(await host.bootedSystem()).toBe(host.first);
  await expectCommitted(host, second);
  expect(await host.waitForEvent("ActivationInterrupted", second)).toMatchObject({
    code: "ACTIVATION_INTERRUPTED",
  });
});

test("a power cut in Committing boots the old or the new system, and the commit is finished", async () => {
  const host = await createReleasedHost();
  const second = await host.release({
    generation: "2",
    units: { "web.service": service("2") },
    switchSleep: 5,
    switchSleepAt: "started",
  });
  await host.waitForState("Committing");
  await host.waitFor(async () => (await host.profile())?.toplevel === second, "the profile set");
  await host.powerCut();
  const booting = await host.bootDefault();
  expect([host.first, second]).toContain(booting);
  await host.boot();
  expect(await host.bootedSystem()).toBe(booting);
  await expectCommitted(host, second);
  expect(await variableOf(host, "web.service", "VERSION")).toBe("2");
});

test("another init interface waits for a reboot, and is committed after it", async () => {
  const host = await createReleasedHost();
  const second = await host.release({ generation: "2", initInterface: "2" });
  await host.waitForCommit(second);
  const agent = (await installedProgram(host)).replace("/lib/nixos-pull.cjs", "");
  expect(await host.end()).toEqual({
    running: host.first,
    bootDefault: second,
    profile: second,
    state: "Idle",
    committed: second,
    denied: [],
    rebootPending: true,
    // The boot is judged by the agent that asked for it, should no other come.
    roots: { agent, current: second, previous: host.first },
    staging: [],
    switchUnit: "not-found",
    deadlineTimer: "not-found",
  });
  await host.restart();
  await host.waitForEvent("HealthConfirmed", second);
  await expectCommitted(host, second);
  expect(await host.bootedSystem()).toBe(second);
});

test("a system that waits for a reboot is not taken for a change by hand", async () => {
  const host = await createReleasedHost();
  const second = await host.release({ generation: "2", initInterface: "2" });
  await host.waitForCommit(second);
  await new Promise((resolve) => setTimeout(resolve, 4_000));
  expect(await host.logs("nixos-pull.service")).not.toContain("changed by hand");
});

test("with the reboot policy `now` a new kernel is proven, booted and proven again", async () => {
  const host = await createReleasedHost({ settings: { reboot: { policy: "now", grace: "1s" } } });
  const before = host.bootId();
  const second = await host.release({
    generation: "2",
    kernel: "6.12.2",
    units: { "web.service": service("2") },
  });
  await host.waitFor(() => host.bootId() !== null && host.bootId() !== before, "a reboot", 300_000);
  await host.waitForBoot(before);
  await host.waitForEvent("HealthConfirmed", second);
  await expectCommitted(host, second);
  expect(await host.bootedSystem()).toBe(second);
  const events = await host.events(second);
  expect(events).toContain("ActivationSucceeded");
  expect(await variableOf(host, "web.service", "VERSION")).toBe("2");
});

test("a system that fails after its boot goes back to the old one, by a reboot if need be", async () => {
  const host = await createReleasedHost({ settings: { reboot: { policy: "now", grace: "1s" } } });
  const before = host.bootId();
  const bad = ["[Service]", "Type=oneshot", "ExecStart=/bin/false", "[Install]"];
  const second = await host.release({
    generation: "2",
    initInterface: "2",
    units: { "bad.service": [...bad, "WantedBy=multi-user.target"].join("\n") },
  });
  await host.waitFor(() => host.bootId() !== null && host.bootId() !== before, "a reboot", 300_000);
  await host.waitForDenial(second);
  expect(await host.bootDefault()).toBe(host.first);
  await host.waitFor(async () => (await host.currentSystem()) === host.first, "the old system");
});

test("a system that is booted and has no agent to judge it is left by the agent that booted it", async () => {
  const host = await createReleasedHost({
    settings: {
      activation: { attempts: 1 },
      reboot: { policy: "now", grace: "1s" },
      health: { timeout: "2s" },
    },
  });
  const before = host.bootId();
  // Its program takes the configuration and its unit never gets to it.
  const dead = agentUnit({ version: "2" }).replace(/^ExecStart=.*$/m, "ExecStart=/bin/false");
  const second = await host.release({
    generation: "2",
    initInterface: "2",
    agentUnit: dead,
    agentUnits: {
      "nixos-pull-boot.service": [
        "[Unit]",
        "ConditionFileIsExecutable=/var/lib/nixos-pull/boot-deadline",
        "[Service]",
        "Type=oneshot",
        "ExecStart=/var/lib/nixos-pull/boot-deadline",
        "Restart=on-failure",
        "RestartSec=5",
      ].join("\n"),
      "nixos-pull-boot.timer": [
        "[Timer]",
        "OnBootSec=15s",
        "[Install]",
        "WantedBy=timers.target",
      ].join("\n"),
    },
  });
  await host.waitFor(() => host.bootId() !== null && host.bootId() !== before, "a reboot", 300_000);
  await host.waitForGivingUp(second, 600_000);
  expect(await host.waitForEvent("ActivationInterrupted", second)).toMatchObject({
    code: "DEADLINE_PASSED",
  });
  expect(await host.bootDefault()).toBe(host.first);
  await host.waitFor(async () => (await host.currentSystem()) === host.first, "the old system");
  await host.waitFor(
    async () => (await host.unit("nixos-pull.service")).activeState === "active",
    "the old system's agent",
  );
  expect(await host.readFile("/var/lib/nixos-pull/boot-deadline")).toBeNull();
});

test("a system that does not come up is tried by one boot, and the next boot is the old one", async () => {
  const host = await createReleasedHost({
    loader: "grub",
    settings: { reboot: { policy: "now", grace: "1s" } },
  });
  const second = await host.release({ generation: "2", initInterface: "2", bootFails: true });
  await host.waitFor(() => !host.isUp, "a trial that does not come up", 300_000);
  expect(host.console().match(/stage 2 failed/g)).toHaveLength(1);
  expect(await host.bootDefault()).toBe(host.first);
  // Whoever presses the reset button has nothing to choose.
  await host.boot();
  await host.waitForDenial(second);
  expect(await host.waitForEvent("ActivationRejected", second)).toMatchObject({
    code: "BOOT_TRIAL_FAILED",
  });
  expect(await host.bootedSystem()).toBe(host.first);
  expect(await host.end()).toMatchObject({
    ...{ running: host.first, bootDefault: host.first, profile: host.first },
    ...{ state: "Idle", denied: [second], rebootPending: false },
  });
});

test("a system that was tried becomes the boot default only once it is found healthy", async () => {
  const host = await createReleasedHost({
    loader: "grub",
    settings: { reboot: { policy: "now", grace: "3s" } },
  });
  const before = host.bootId();
  const second = await host.release({ generation: "2", initInterface: "2" });
  await host.waitForEvent("TrialArmed", second);
  await host.hold("health");
  await host.waitForBoot(before);
  expect(await host.bootedSystem()).toBe(second);
  await host.waitForState("Verifying");
  expect(await host.bootDefault()).toBe(host.first);
  expect((await host.profile())?.toplevel).toBe(host.first);
  await host.letGo("health");
  await expectCommitted(host, second);
  expect(await host.bootDefault()).toBe(second);
});

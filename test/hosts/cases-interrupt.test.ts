import { rm } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import {
  createReleasedHost,
  expectCommitted,
  expectGivenUp,
  HELD_SWITCH,
  service,
  variableOf,
  type ReleasedHost,
} from "./released-host.ts";

const SWITCH_UNIT = "nixos-pull-switch.service";

test("an agent killed during the switch finds the switch when it is back and finishes", async () => {
  const host = await createReleasedHost();
  await host.hold("switch");
  const second = await host.release({
    generation: "2",
    units: { "web.service": service("2") },
    activationScript: HELD_SWITCH,
  });
  await host.waitFor(
    async () =>
      (await host.unit(SWITCH_UNIT)).subState === "running" &&
      (await host.record())?.state.name === "Activating",
    "a switch under way",
  );
  const { invocationId } = await host.unit(SWITCH_UNIT);
  await host.succeed("systemctl", "kill", "--signal=SIGKILL", "nixos-pull.service");
  await host.waitForEvent("AgentRestarted", second);
  await host.waitFor(
    async () => (await host.logs("nixos-pull.service")).includes("was started before"),
    "the new agent waiting for the switch",
  );
  expect(await host.unit(SWITCH_UNIT)).toMatchObject({ invocationId, subState: "running" });
  await host.letGo("switch");
  await expectCommitted(host, second);
  const events = await host.events(second);
  expect(events.filter((event) => event === "ActivationBegun")).toHaveLength(1);
  expect(await variableOf(host, "web.service", "VERSION")).toBe("2");
});

test("the deadline takes over from an agent that stands still and rolls back", async () => {
  const host = await createReleasedHost({
    settings: { activation: { timeout: "10s", attempts: 1 }, health: { timeout: "2s" } },
  });
  await host.hold("health");
  const second = await host.release({ generation: "2", units: { "web.service": service("2") } });
  await host.waitForState("Verifying");
  const { mainPid } = await host.unit("nixos-pull.service");
  await host.succeed("systemctl", "kill", "--signal=SIGSTOP", "nixos-pull.service");
  await host.letGo("health");
  await host.waitFor(
    async () => (await host.logs("nixos-pull-deadline.service")).includes("DEADLINE_PASSED"),
    "the deadline",
    150_000,
  );
  await expectGivenUp(host, second);
  expect(await host.waitForEvent("ActivationInterrupted", second)).toMatchObject({
    code: "DEADLINE_PASSED",
  });
  expect(await variableOf(host, "web.service", "VERSION")).toBe("1");
  await host.waitFor(
    async () => (await host.unit("nixos-pull.service")).activeState === "active",
    "an agent at work again",
  );
  expect((await host.unit("nixos-pull.service")).mainPid).not.toBe(mainPid);
});

test("a switch that is killed is undone and tried again", async () => {
  const host = await createReleasedHost();
  await host.hold("switch");
  const second = await host.release({
    generation: "2",
    units: { "web.service": service("2") },
    activationScript: HELD_SWITCH,
  });
  await host.waitFor(async () => (await host.currentSystem()) === second, "the system activated");
  await host.succeed("systemctl", "kill", "--signal=SIGKILL", SWITCH_UNIT);
  await host.letGo("switch");
  const killed = await host.waitForEvent("ActivationInterrupted", second);
  expect(killed).toMatchObject({ state: "RollingBack", code: "ACTIVATION_INTERRUPTED" });
  await expectCommitted(host, second);
  const events = await host.events(second);
  expect(events.filter((event) => event === "ActivationBegun")).toHaveLength(2);
  expect(events).toContain("RollbackSucceeded");
  expect(await variableOf(host, "web.service", "VERSION")).toBe("2");
});

/** Ends the agent and takes its record away before it is back. */
async function loseRecord(host: ReleasedHost): Promise<void> {
  await host.succeed("systemctl", "kill", "--signal=SIGSTOP", "nixos-pull.service");
  await rm(join(host.root, "var/lib/nixos-pull/state.json"));
  await host.succeed("systemctl", "kill", "--signal=SIGKILL", "nixos-pull.service");
}

test("an agent killed in Activating that loses its record ends as the new system", async () => {
  const host = await createReleasedHost();
  await host.hold("switch");
  const second = await host.release({
    generation: "2",
    units: { "web.service": service("2") },
    activationScript: HELD_SWITCH,
  });
  await host.waitFor(async () => (await host.currentSystem()) === second, "the system activated");
  await loseRecord(host);
  await host.letGo("switch");
  await expectCommitted(host, second);
  expect(await variableOf(host, "web.service", "VERSION")).toBe("2");
  expect(await host.logs("nixos-pull.service")).toContain("STATE_LOST");
});

test("an agent that loses its record while a bad system runs never commits it", async () => {
  const host = await createReleasedHost();
  await host.hold("health");
  const bad = ["[Service]", "Type=oneshot", "ExecStart=/bin/false", "[Install]"];
  const second = await host.release({
    generation: "2",
    units: { "bad.service": [...bad, "WantedBy=multi-user.target"].join("\n") },
  });
  await host.waitForState("Verifying");
  await loseRecord(host);
  await host.letGo("health");
  await host.waitForEvent("LeftoversRemoved", second);
  expect((await host.record())?.committed?.toplevel).not.toBe(second);
  expect(await host.currentSystem()).toBe(host.first);
  expect(await host.bootDefault()).toBe(host.first);
});

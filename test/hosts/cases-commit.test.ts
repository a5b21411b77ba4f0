import { expect, test } from "vitest";
import {
  agentProgram,
  agentUnit,
  anotherBundle,
  createReleasedHost,
  expectCommitted,
  expectGivenUp,
  expectRolledBack,
  installedProgram,
  service,
  variableOf,
} from "./released-host.ts";

const UPDATE_EVENTS = [
  "ReleaseAccepted",
  "FetchBegun",
  "ClosureImported",
  "BaselineRecorded",
  "ActivationBegun",
  "ActivationSucceeded",
  "CommitBegun",
  "BootDefaultSet",
  "LeftoversRemoved",
];

test("a plain update is proven by `test`, then committed by `boot`", async () => {
  const host = await createReleasedHost();
  await host.hold("health");
  const second = await host.release({ generation: "2", units: { "web.service": service("2") } });

  await host.waitForState("Verifying");
  // Proven first: a power cut now boots the old system.
  expect(await host.currentSystem()).toBe(second);
  expect(await host.bootDefault()).toBe(host.first);
  expect(await host.profile()).toEqual({ generation: 1, toplevel: host.first });
  expect(await host.unit("nixos-pull-deadline.timer")).toMatchObject({ activeState: "active" });
  expect(await host.gcRoots()).toMatchObject({
    pending: second,
    "previous-profile": host.first,
    "previous-running": host.first,
    agent: (await installedProgram(host)).replace("/lib/nixos-pull.cjs", ""),
  });
  await host.letGo("health");

  await expectCommitted(host, second);
  expect(await host.events(second)).toEqual(UPDATE_EVENTS);
  expect(await host.profile()).toEqual({ generation: 2, toplevel: second });
  expect(await variableOf(host, "web.service", "VERSION")).toBe("2");
  expect(await host.failedUnits()).toEqual([]);
  const said = await host.logs("nixos-pull.service");
  expect(said.indexOf("switch-to-configuration test")).toBeGreaterThan(0);
  expect(said.lastIndexOf("switch-to-configuration boot")).toBeGreaterThan(
    said.lastIndexOf("switch-to-configuration test"),
  );
  expect(said).not.toContain("switch-to-configuration switch");

  const reached = await host.waitForEvent("ActivationSucceeded", second);
  expect(reached.lastLines?.join("\n")).toContain("stopping the following units: web.service");
});

test("another agent in the release, its unit left alone: the old one makes way and the new one commits", async () => {
  const host = await createReleasedHost();
  const before = await host.unit("nixos-pull.service");
  const second = await host.release({ generation: "2", bundle: await anotherBundle() });
  await expectCommitted(host, second);
  const events = [...UPDATE_EVENTS];
  events.splice(events.indexOf("ActivationSucceeded") + 1, 0, "AgentRestarted");
  expect(await host.events(second)).toEqual(events);
  await host.waitFor(
    async () => (await agentProgram(host)) === (await installedProgram(host)),
    "the agent of the new system",
  );
  const after = await host.unit("nixos-pull.service");
  expect(after.activeState).toBe("active");
  expect(after.mainPid).not.toBe(before.mainPid);
});

test("another unit for the same agent: it runs as the new unit says in the end", async () => {
  const host = await createReleasedHost();
  const second = await host.release({ generation: "2", agentUnit: agentUnit({ version: "2" }) });
  await expectCommitted(host, second);
  await host.waitFor(
    async () => (await variableOf(host, "nixos-pull.service", "AGENT_VERSION")) === "2",
    "the new unit in effect",
    10_000,
  );
});

test("the agent is replaced in the middle of the switch: the new one finishes and commits", async () => {
  const unit = (version: string): string => agentUnit({ version, untouched: false });
  const host = await createReleasedHost({ first: { agentUnit: unit("1") } });
  const second = await host.release({
    generation: "2",
    agentUnit: unit("2"),
    units: { "web.service": service("2") },
  });
  const begun = await host.waitForEvent("ActivationBegun", second);
  expect(begun.state).toBe("Activating");
  const next = await host.waitForEvent("AgentRestarted", second, 180_000);
  expect(next.state).toBe("Activating");
  await expectCommitted(host, second);
  expect(await variableOf(host, "nixos-pull.service", "AGENT_VERSION")).toBe("2");
  expect(await agentProgram(host)).toBe(await installedProgram(host));
  expect(await variableOf(host, "web.service", "VERSION")).toBe("2");
});

test("the agent is removed and its unit left alone: the old one commits the release", async () => {
  const host = await createReleasedHost();
  const second = await host.release({ generation: "2", agent: "removed" });
  await expectCommitted(host, second);
  expect(await host.readFile("/run/current-system/sw/bin/nixos-pull")).toBeNull();
});

test("the agent is removed and stopped by the switch: the deadline rolls back", async () => {
  const host = await createReleasedHost({
    first: { agentUnit: agentUnit({ untouched: false }) },
    settings: { activation: { timeout: "10s", attempts: 1 }, health: { timeout: "2s" } },
  });
  const second = await host.release({ generation: "2", agent: "removed" });
  await host.waitForEvent("ActivationBegun", second);
  await host.waitFor(
    async () => (await host.logs("nixos-pull-deadline.service")).includes("DEADLINE_PASSED"),
    "the deadline",
    150_000,
  );
  await expectGivenUp(host, second);
  await host.waitFor(
    async () => (await host.unit("nixos-pull.service")).activeState === "active",
    "the old system's agent",
  );
});

test("the new system's agent is broken: the end is one whole system", async () => {
  const host = await createReleasedHost();
  const second = await host.release({ generation: "2", agent: "broken" });
  await host.waitFor(
    async () => {
      const record = await host.record();
      const denied = record?.denied.some(({ toplevel }) => toplevel === second) ?? false;
      return record?.state.name === "Idle" && (denied || record.committed?.toplevel === second);
    },
    "an end",
    90_000,
  );
  const { running, bootDefault, profile, committed, switchUnit, deadlineTimer } = await host.end();
  expect([bootDefault, profile, committed]).toEqual([running, running, running]);
  expect([switchUnit, deadlineTimer]).toEqual(["not-found", "not-found"]);
});

test("the new system's agent is broken: it is not committed, the host would be lost", async () => {
  const host = await createReleasedHost();
  const second = await host.release({ generation: "2", agent: "broken" });
  await host.waitForEvent("LeftoversRemoved", second);
  await expectRolledBack(host, second);
});

test("a unit that had failed before does not stand in the way", async () => {
  const sick =
    "[Service]\nType=oneshot\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n";
  const units = (version: string): Record<string, string> => ({
    "sick.service": sick,
    "web.service": service(version),
  });
  const host = await createReleasedHost({ first: { units: units("1") } });
  expect(await host.failedUnits()).toEqual(["sick.service"]);
  const second = await host.release({ generation: "2", units: units("2") });
  await expectCommitted(host, second);
  const { message } = await host.waitForEvent("ActivationSucceeded", second);
  expect(message).toContain("units failed: sick.service");
  expect(await host.failedUnits()).toEqual(["sick.service"]);
});

test("a switch by hand is seen as drift and left alone until the next release", async () => {
  const host = await createReleasedHost();
  const manual = await host.build({ generation: "2" });
  await host.importClosure(manual);
  await host.succeed("nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", manual);
  expect(await host.switchTo(manual, "switch")).toMatchObject({ exitCode: 0 });
  await host.waitFor(
    async () => (await host.logs("nixos-pull.service")).includes("changed by hand"),
    "word of the drift",
  );
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  expect(await host.end()).toMatchObject({
    running: manual,
    bootDefault: manual,
    profile: manual,
    state: "Idle",
    committed: host.first,
    denied: [],
  });
  expect(await host.events(manual)).toEqual([]);
  const third = await host.release({ generation: "3" });
  await expectCommitted(host, third, manual);
});

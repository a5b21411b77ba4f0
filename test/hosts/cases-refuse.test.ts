import { expect, test } from "vitest";
import {
  createReleasedHost,
  expectGivenUp,
  expectRolledBack,
  service,
  variableOf,
} from "./released-host.ts";

const FAILING_ONESHOT = [
  "[Service]",
  "Type=oneshot",
  "ExecStart=/bin/sh -c 'echo it will not do; exit 3'",
  "[Install]",
  "WantedBy=multi-user.target",
].join("\n");

test("a system that cuts the network is rolled back, the network is back, and it waits in the end", async () => {
  const host = await createReleasedHost({
    network: "private",
    settings: { activation: { attempts: 2, timeout: "20s", retryWait: "1s" } },
  });
  const second = await host.release({ generation: "2", cutNetwork: true });
  const cut = await host.waitForEvent("ActivationInterrupted", second);
  expect(cut).toMatchObject({ state: "RollingBack", code: "HEALTH_MIRROR" });
  await host.waitFor(
    async () => {
      const state = (await host.record())?.state;
      return state?.name === "Failed" && state.gaveUp === true;
    },
    "an end of the tries",
    90_000,
  );
  expect(await host.end()).toMatchObject({
    ...{ running: host.first, bootDefault: host.first, committed: host.first, denied: [] },
  });
  expect(await host.succeed("ip", "link", "show", "host0")).toContain("state UP");

  // The network serves: the next release arrives.
  const third = await host.release({ generation: "3" });
  await host.waitForCommit(third);
  expect(await host.currentSystem()).toBe(third);
});

test("a new unit that fails is rolled back, named, and not tried again", async () => {
  const host = await createReleasedHost();
  const second = await host.release({
    generation: "2",
    units: { "web.service": service("2"), "bad.service": FAILING_ONESHOT },
  });
  await expectRolledBack(host, second);
  const rejected = await host.waitForEvent("ActivationRejected", second);
  expect(rejected.code).toBe("HEALTH_FAILED");
  expect(rejected.message).toContain("bad.service");
  expect(await variableOf(host, "web.service", "VERSION")).toBe("1");
  expect(await host.failedUnits()).toEqual([]);
  await host.waitFor(
    async () => (await host.logs("nixos-pull.service")).includes("is not tried again"),
    "word of the denial",
  );
  const events = await host.events(second);
  expect(events.filter((event) => event === "ActivationBegun")).toHaveLength(1);
});

test("a switch that hangs is ended by its time limit and rolled back", async () => {
  const host = await createReleasedHost({
    settings: { activation: { timeout: "8s", attempts: 1 } },
  });
  const second = await host.release({
    generation: "2",
    units: { "web.service": service("2") },
    switchSleep: 600,
    switchSleepAt: "activated",
  });
  await expectGivenUp(host, second);
  expect(await host.waitForEvent("ActivationInterrupted", second)).toMatchObject({
    code: "ACTIVATION_TIMEOUT",
  });
  expect(await variableOf(host, "web.service", "VERSION")).toBe("1");
});

test("an activation script that fails is rolled back and denied", async () => {
  const host = await createReleasedHost();
  const second = await host.release({
    generation: "2",
    units: { "web.service": service("2") },
    activateFails: true,
  });
  await expectRolledBack(host, second);
  const rejected = await host.waitForEvent("ActivationRejected", second);
  expect(rejected.code).toBe("ACTIVATION_FAILED");
  expect(rejected.message).toContain("snippet failing (1)");
  expect(rejected.lastLines?.join("\n")).toContain("Failed to run activate script");
  expect(await variableOf(host, "web.service", "VERSION")).toBe("1");
});

test("a new unit that crashes and is restarted for ever is rolled back", async () => {
  const host = await createReleasedHost();
  const loop = [
    "[Unit]",
    "StartLimitIntervalSec=0",
    "[Service]",
    "ExecStart=/bin/false",
    "Restart=always",
    "RestartSec=5",
    "[Install]",
    "WantedBy=multi-user.target",
  ].join("\n");
  const second = await host.release({ generation: "2", units: { "loop.service": loop } });
  await host.waitForEvent("LeftoversRemoved", second);
  await expectRolledBack(host, second);
});

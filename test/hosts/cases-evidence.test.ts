import { expect, test } from "vitest";
import {
  createReleasedHost,
  expectCommitted,
  expectGivenUp,
  expectRolledBack,
  oneshot,
  service,
} from "./released-host.ts";
import { REAL_SWITCH } from "./toplevel.ts";

const SICK = { "sick.service": oneshot("exit 3") };

/** An instance that a person starts: no target wants it. */
const WORKER = { "worker@.service": "[Service]\nExecStart=/bin/sleep infinity\n" };

test("a failed activation script behind exit code 4 is rolled back, and its snippet named", async () => {
  const host = await createReleasedHost({ first: { units: SICK } });
  const second = await host.release({ generation: "2", units: SICK, activateFails: true });
  await expectRolledBack(host, second);
  const rejected = await host.waitForEvent("ActivationRejected", second);
  expect(rejected.code).toBe("ACTIVATION_FAILED");
  expect(rejected.message).toContain("snippet failing (1)");
  const lines = rejected.lastLines?.join("\n") ?? "";
  expect(lines).toContain("Activation script snippet 'failing' failed (1)");
  expect(lines).toContain("warning: the following units failed: sick.service");
});

test("a changed unit whose dependency is missing is rolled back, though nothing is failed", async () => {
  const host = await createReleasedHost();
  const dependency = `[Unit]\nAssertPathExists=/no/such/file\n${oneshot("true")}`;
  const needy = `[Unit]\nRequires=disk.service\nAfter=disk.service\n${service("2")}`;
  const second = await host.release({
    generation: "2",
    units: { "web.service": needy, "disk.service": dependency },
  });
  await expectRolledBack(host, second);
  const rejected = await host.waitForEvent("ActivationRejected", second);
  expect(rejected.message).toContain("units did not start: web.service");
  expect((await host.unit("web.service")).activeState).toBe("active");
});

test("a changed inhibitor is no fault: the system waits for a boot, and is committed after it", async () => {
  const host = await createReleasedHost({ first: { inhibitors: { dbus: "dbus" } } });
  const second = await host.release({ generation: "2", inhibitors: { dbus: "broker" } });
  await host.waitForCommit(second);
  expect(await host.currentSystem()).toBe(host.first);
  expect(await host.bootDefault()).toBe(second);
  const begun = await host.waitForEvent("CommitBegun", second);
  expect(begun.message).toContain("switch inhibitor");
  expect(await host.events(second)).not.toContain("ActivationBegun");
  await host.restart();
  await host.waitForEvent("HealthConfirmed", second);
  await expectCommitted(host, second);
});

test("a check that refuses is not begun, and the system is tried when it does not refuse", async () => {
  const host = await createReleasedHost({ settings: { limits: { retryMax: "2s" } } });
  await host.succeed("touch", "/var/tmp/check-fails-2");
  const second = await host.release({ generation: "2" });
  const refused = await host.waitForEvent("AttemptFailed", second);
  expect(refused).toMatchObject({ state: "Failed", code: "SWITCH_REFUSED" });
  expect(refused.message).toContain("pre-switch check failing");
  expect((await host.end()).denied).toEqual([]);
  await host.succeed("rm", "/var/tmp/check-fails-2");
  await expectCommitted(host, second);
  expect(await host.events(second)).not.toContain("RollbackSucceeded");
});

test("the way back is not vetoed by the old system's checks, and starts what was started by hand", async () => {
  const host = await createReleasedHost({ first: { units: WORKER } });
  await host.succeed("systemctl", "start", "worker@3.service");
  await host.succeed("touch", "/var/tmp/check-fails-1");
  const bad = { "bad.service": oneshot("exit 3") };
  const second = await host.release({ generation: "2", units: bad });
  await expectRolledBack(host, second);
  expect((await host.unit("worker@3.service")).activeState).toBe("active");
  const back = await host.waitForEvent("RollbackSucceeded", second);
  expect(back.message).toBeUndefined();
});

test("an unchanged unit that fails is tried again, and not denied", async () => {
  const remote = { "remote.service": oneshot("test ! -e /var/tmp/down") };
  const host = await createReleasedHost({
    first: { units: remote },
    settings: { activation: { timeout: "20s", retryWait: "2s", attempts: 2 } },
  });
  await host.succeed("touch", "/var/tmp/down");
  const second = await host.release({ generation: "2", units: remote });
  const undone = await host.waitForEvent("ActivationInterrupted", second);
  expect(undone).toMatchObject({ code: "HEALTH_UNBLAMED", state: "RollingBack" });
  expect(undone.message).toContain("remote.service");
  await host.succeed("rm", "/var/tmp/down");
  await host.waitForCommit(second);
  expect((await host.end()).denied).toEqual([]);
});

test("a live way back that is killed again and again is made by a boot, whatever the policy", async () => {
  const dies = 'if [ -n "${NIXOS_ACTION-}" ] && [ -e /var/tmp/die ]; then kill -9 $PPID; fi';
  const host = await createReleasedHost({
    first: { activationScript: dies },
    settings: { reboot: { policy: "never", grace: "0s" } },
  });
  const before = host.bootId();
  await host.succeed("touch", "/var/tmp/die");
  const bad = { "bad.service": oneshot("exit 3") };
  const second = await host.release({ generation: "2", units: bad });
  expect(await host.waitForEvent("RollbackFailed", second)).toMatchObject({ state: "RollingBack" });
  await host.waitFor(
    async () => (await host.logs("nixos-pull.service")).includes("ROLLBACK_FAILED"),
    "word of the failure",
  );
  const back = await host.waitForEvent("RollbackSucceeded", second);
  expect(back.message).toContain("a boot leads back");
  await host.waitForBoot(before);
  await host.waitFor(
    async () => (await host.record())?.pendingReboot === null,
    "the reboot noticed",
    60_000,
  );
  await expectRolledBack(host, second);
  expect(await host.bootedSystem()).toBe(host.first);
});

test.skipIf(REAL_SWITCH !== undefined)(
  "exit code 11 after the activation is no lock: it is undone, and the old system stays the way back",
  async () => {
    const host = await createReleasedHost({
      settings: { activation: { timeout: "20s", attempts: 2 } },
    });
    const second = await host.release({
      generation: "2",
      switchDiesAt: "activated",
      switchDiesWith: 11,
    });
    await expectGivenUp(host, second);
    const events = await host.events(second);
    expect(events.filter((event) => event === "RollbackSucceeded")).toHaveLength(2);
    const undone = await host.waitForEvent("ActivationInterrupted", second);
    expect(undone.code).toBe("ACTIVATION_INTERRUPTED");
  },
);

test.skipIf(REAL_SWITCH !== undefined)(
  "a time limit that passes while the lock of an old program is waited for denies nothing",
  async () => {
    const host = await createReleasedHost({ settings: { activation: { timeout: "4s" } } });
    const lock = "/run/nixos/switch-to-configuration.lock";
    await host.succeed("systemd-run", "--unit=locker", "flock", lock, "sleep", "infinity");
    await host.waitFor(
      async () => (await host.exec("flock", "--nonblock", lock, "true")).exitCode !== 0,
      "a held lock",
    );
    const second = await host.release({ generation: "2", switchEra: "24.11" });
    const waited = await host.waitForEvent("AttemptFailed", second);
    expect(waited).toMatchObject({ code: "SWITCH_LOCKED", state: "Failed" });
    await host.succeed("systemctl", "stop", "locker");
    await expectCommitted(host, second);
    expect(await host.events(second)).not.toContain("RollbackSucceeded");
  },
);

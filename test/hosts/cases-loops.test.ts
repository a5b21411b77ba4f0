import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createReleasedHost, expectGivenUp, service } from "./released-host.ts";

/** How often an agent may be ended in one activation. */
const MAX_RESTARTS = 10;

test("an agent that is restarted again and again gives the release up, and does not deny it", async () => {
  const host = await createReleasedHost({ settings: { activation: { attempts: 1 } } });
  await host.hold("health");
  const second = await host.release({ generation: "2", units: { "web.service": service("2") } });
  await host.waitForState("Verifying");
  for (let restarts = 0; restarts <= MAX_RESTARTS; restarts++) {
    const { mainPid } = await host.unit("nixos-pull.service");
    await host.succeed("systemctl", "kill", "--signal=SIGKILL", "nixos-pull.service");
    await host.waitFor(
      async () => {
        const now = (await host.unit("nixos-pull.service")).mainPid;
        const { state } = (await host.record()) ?? {};
        const isFound = state?.name !== "Verifying" || state.restarts > restarts;
        return now !== 0 && now !== mainPid && isFound;
      },
      `restart ${restarts}`,
      60_000,
    );
  }
  await host.letGo("health");
  expect(await host.waitForEvent("ActivationInterrupted", second)).toMatchObject({
    code: "RESTART_LOOP",
    message: `the agent was ended ${MAX_RESTARTS} times in Verifying`,
  });
  await expectGivenUp(host, second);
  // Another release is followed.
  const third = await host.release({ generation: "3", units: { "web.service": service("3") } });
  await host.waitForCommit(third);
});

test("a reboot that is asked for and does not come is asked for three times", async () => {
  const host = await createReleasedHost({ settings: { reboot: { policy: "now", grace: "1s" } } });
  // A target that brings nothing along: the request succeeds, and nothing happens.
  const target = "[Unit]\nDescription=No reboot\nAllowIsolate=yes\n";
  const directory = "etc/systemd/system.control";
  await mkdir(join(host.root, directory), { recursive: true });
  await writeFile(join(host.root, directory, "reboot.target"), target);
  await host.succeed("systemctl", "daemon-reload");
  const before = host.bootId();
  await host.release({ generation: "2", initInterface: "2" });
  await host.waitFor(
    async () => (await host.logs("nixos-pull.service")).includes("REBOOT_LOOP"),
    "an end of the requests",
    120_000,
  );
  expect((await host.record())?.pendingReboot).toMatchObject({ requested: 3, wayBack: false });
  expect(host.bootId()).toBe(before);
  expect((await host.record())?.denied).toEqual([]);
});

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import {
  createReleasedHost,
  expectCommitted,
  HELD_SWITCH,
  service,
  type ReleasedHost,
} from "./released-host.ts";

const AGENT = "nixos-pull.service";

/** Preloaded into the agent: hangs once in one of two ways, as soon as a file asks for it. */
const HANG = `
const fs = require("node:fs");
const promises = require("node:fs/promises");
const asked = (how) => {
  try { fs.unlinkSync("/var/tmp/hang-" + how); return true; } catch { return false; }
};
setInterval(() => { if (asked("loop")) for (;;); }, 100).unref();
const { rename } = promises;
promises.rename = (from, to) =>
  /state\\.json$/.test(to) && asked("promise") ? new Promise(() => {}) : rename(from, to);
`;

/** What the module's option \`watchdog\` makes of the unit, and the hang. */
const WATCHED = [
  "[Service]",
  "WatchdogSec=8",
  "NotifyAccess=all",
  "WatchdogSignal=SIGKILL",
  "ExecStopPost=-/usr/bin/touch /var/lib/nixos-pull/ended-${SERVICE_RESULT}",
  "Environment=NODE_OPTIONS=--require=/var/tmp/hang.cjs",
];

async function watchedHost(): Promise<ReleasedHost> {
  const host = await createReleasedHost({ settings: { activation: { timeout: "2m" } } });
  await writeFile(join(host.root, "var/tmp/hang.cjs"), HANG);
  const directory = "/run/systemd/system/nixos-pull.service.d";
  const script = `mkdir -p ${directory} && cat > ${directory}/watchdog.conf <<'END'\n${WATCHED.join("\n")}\nEND`;
  await host.succeed("sh", "-c", script);
  await host.succeed("systemctl", "daemon-reload");
  await host.succeed("systemctl", "restart", AGENT);
  return host;
}

test.each(["loop", "promise"])(
  "an agent that hangs (%s) is ended and started again, goes on, and says so",
  async (how) => {
    const host = await watchedHost();
    const before = await host.unit(AGENT);
    await writeFile(join(host.root, "var/tmp", `hang-${how}`), "");
    const second = await host.release({ generation: "2", units: { "web.service": service("2") } });
    await host.waitFor(
      async () => (await host.logs(AGENT)).includes("Failed with result 'watchdog'"),
      "the watchdog",
    );
    await expectCommitted(host, second);
    expect((await host.unit(AGENT)).invocationId).not.toBe(before.invocationId);
    const hung = (await host.history()).filter(({ event }) => event === "AgentHung");
    expect(hung).toMatchObject([{ code: "AGENT_HUNG" }]);
    const unit = await host.succeed("systemctl", "show", "--property=ExecStart", AGENT);
    const program = /path=(\S+)/.exec(unit)?.[1] ?? "";
    const said = await host.succeed(program, "status");
    expect(said).toContain("AGENT_HUNG: the service gave no sign of life");
  },
);

test("a switch, and a wait, that take longer than the watchdog are left alone", async () => {
  const host = await watchedHost();
  await host.hold("switch");
  const second = await host.release({
    generation: "2",
    units: { "web.service": service("2") },
    activationScript: HELD_SWITCH,
  });
  await host.waitForState("Activating");
  const { invocationId } = await host.unit(AGENT);
  const begun = performance.now();
  // Twice as long as it takes the watchdog to act.
  await host.waitFor(async () => performance.now() - begun > 30_000, "half a minute");
  await host.letGo("switch");
  await expectCommitted(host, second);
  expect((await host.unit(AGENT)).invocationId).toBe(invocationId);
  expect(await host.logs(AGENT)).not.toContain("result 'watchdog'");
});

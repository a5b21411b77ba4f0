// `nixos-pull doctor` on a host with real systemd: well at first, then with one fault after the other.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { agentUnit, createReleasedHost, type ReleasedHost } from "./released-host.ts";

/** The units that the NixOS module has beside the agent's own. */
const UNITS = {
  "nixos-pull-boot.service": [
    "[Unit]",
    "ConditionFileIsExecutable=/var/lib/nixos-pull/boot-deadline",
    "[Service]",
    "Type=oneshot",
    "ExecStart=/var/lib/nixos-pull/boot-deadline",
  ].join("\n"),
  "nixos-pull-boot.timer": "[Timer]\nOnBootSec=20min\n[Install]\nWantedBy=timers.target",
  "nixos-pull-boot-complete.service": [
    "[Service]",
    "Type=oneshot",
    "RemainAfterExit=yes",
    "ExecStart=@nixos-pull@/bin/nixos-pull boot-complete",
  ].join("\n"),
};

/** Preloaded into the doctor: its clock is two years behind. */
const BEHIND = `
const Real = Date;
const shift = 2 * 365 * 86_400_000;
globalThis.Date = class extends Real {
  constructor(...given) { if (given.length > 0) super(...given); else super(Real.now() - shift); }
  static now() { return Real.now() - shift; }
};
`;

interface Examined {
  readonly exitCode: number | null;
  readonly checks: { id: string; subject: string | null; outcome: string; found: string }[];
}

async function examine(host: ReleasedHost, config: string, variables = ""): Promise<Examined> {
  const program = `/run/current-system/sw/bin/nixos-pull`;
  const { exitCode, stdout, stderr } = await host.exec(
    ...(["sh", "-c", `${variables} ${program} doctor --config ${config} --json`] as const),
  );
  if (stdout === "") throw new Error(stderr);
  return { exitCode, checks: (JSON.parse(stdout) as Examined).checks };
}

function troubles({ checks }: Examined): string[] {
  return checks
    .filter(({ outcome }) => outcome !== "passed")
    .map(({ id, subject, outcome, found }) => `${outcome} ${id} ${subject}: ${found}`);
}

test("a host that is well passes all checks, and what is broken then is named", async () => {
  const lines = "WatchdogSec=600\nNotifyAccess=all";
  const host = await createReleasedHost({
    network: "private",
    first: { agentUnit: agentUnit({ lines }), agentUnits: UNITS },
  });
  // Whether a time server sets the clock is the business of the machine below.
  const settings = JSON.parse((await host.readFile("/etc/nixos-pull/config.json")) ?? "") as object;
  const config = "/var/tmp/doctor.json";
  await writeFile(
    join(host.root, config.slice(1)),
    JSON.stringify({ ...settings, clock: "ignore" }),
  );

  const well = await examine(host, config);
  expect(troubles(well)).toEqual([]);
  expect(well.exitCode).toBe(0);

  await writeFile(join(host.root, "var/tmp/behind.cjs"), BEHIND);
  const strict = "/etc/nixos-pull/config.json";
  const behind = await examine(host, strict, "NODE_OPTIONS=--require=/var/tmp/behind.cjs");
  expect(behind.exitCode).toBe(22);
  const late = behind.checks.filter(({ outcome }) => outcome === "failed").map(({ id }) => id);
  expect(late).toEqual(expect.arrayContaining(["clock.mirror", "clock.release"]));

  await host.cutNetwork();
  const cut = await examine(host, config);
  expect(cut.exitCode).toBe(22);
  const failed = cut.checks.filter(({ outcome }) => outcome === "failed").map(({ id }) => id);
  expect(failed).toEqual(["mirror.connection", "mirror.any"]);
  await host.restoreNetwork();
  await host.waitFor(
    async () => (await examine(host, config)).exitCode === 0,
    "a host that is well",
  );

  // What outranks /etc/systemd/system (systemd.unit(5)): there is no other way to mask a unit of NixOS.
  const masks = "/run/systemd/system.control";
  const units = ["nixos-pull.service", "nixos-pull-boot.timer"];
  await host.succeed("mkdir", "-p", masks);
  for (const unit of units) await host.succeed("ln", "-s", "/dev/null", `${masks}/${unit}`);
  await host.succeed("systemctl", "daemon-reload");
  const masked = await examine(host, config);
  expect(troubles(masked)).toEqual([
    "failed units.agent nixos-pull.service: nixos-pull.service is masked",
    "failed units.boot-deadline nixos-pull-boot.timer: nixos-pull-boot.timer is masked",
  ]);
});

import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { EXIT } from "../../agent/core/errors.ts";
import { configured, evaluate, noNix } from "./nix.ts";

type Section = Record<string, unknown>;

interface Unit {
  readonly unitConfig: Section;
  readonly serviceConfig: Section;
  readonly environment: Record<string, string>;
  readonly path: readonly string[];
}

async function unitOf(configuration: string): Promise<Unit> {
  const services = (await evaluate("services", configuration)) as Record<string, Unit>;
  const unit = services["nixos-pull"];
  if (!unit) throw new Error("expected a unit");
  return unit;
}

/** The section's lines as NixOS writes them: one for each element of a list. */
function lines(section: Section): string {
  return Object.entries(section)
    .flatMap(([key, value]) => [value].flat().map((one) => `${key}=${String(one)}\n`))
    .join("");
}

describe.skipIf(noNix)("nixos-pull.service", () => {
  it("is not stopped or restarted by the switch that it runs", async () => {
    expect(await unitOf(configured())).toMatchObject({
      restartIfChanged: false,
      stopIfChanged: false,
      unitConfig: { "X-StopOnRemoval": false },
    });
  });

  it("runs the package's program, with the tools that the agent calls", async () => {
    const unit = await unitOf(configured());
    expect(unit).toMatchObject({
      wantedBy: ["multi-user.target"],
      wants: ["network-online.target"],
      after: ["network-online.target"],
      startLimitIntervalSec: 0,
    });
    expect(unit.serviceConfig).toMatchObject({
      Type: "exec",
      Restart: "always",
      KillMode: "mixed",
      SuccessExitStatus: EXIT.interrupted,
      StateDirectory: "nixos-pull",
      StateDirectoryMode: "0700",
    });
    expect(unit.serviceConfig["ExecStart"]).toMatch(/^\/nix\/store\/[^ ]+\/bin\/nixos-pull run$/);
    const tools = unit.path.map((path) => path.replace(/^.*\/[0-9a-z]{32}-/, ""));
    expect(tools).toEqual(["nix", "util-linux", "zstd", "systemd", "coreutils"]);
  });

  it("is ended and started again if it gives no sign of life, unless that is turned off", async () => {
    const unit = await unitOf(configured());
    expect(unit.serviceConfig).toMatchObject({
      WatchdogSec: "30m",
      NotifyAccess: "all",
      WatchdogSignal: "SIGKILL",
    });
    expect(unit.serviceConfig["ExecStopPost"]).toMatch(
      /^-\/nix\/store\/[^ ]+\/bin\/touch \/var\/lib\/nixos-pull\/ended-\$\{SERVICE_RESULT\}$/,
    );
    const off = await unitOf(`{
      imports = [ ${configured()} ];
      services.nixos-pull.watchdog = null;
    }`);
    expect(off.serviceConfig).not.toHaveProperty("WatchdogSec");
    expect(off.serviceConfig).not.toHaveProperty("NotifyAccess");
  });

  it("waits at its stop for as long as an activation may take", async () => {
    const unit = await unitOf(configured('activation.timeout = "1h30m";'));
    expect(unit.serviceConfig).toMatchObject({ TimeoutStopSec: "1h30m 2m" });
  });

  it("keeps everything in the state directory, wherever that is", async () => {
    const unit = await unitOf(configured('paths.state = "/persist/pull";'));
    expect(unit.serviceConfig).not.toHaveProperty("StateDirectory");
    expect(unit.unitConfig).toMatchObject({ RequiresMountsFor: ["/persist/pull"] });
    expect(unit.environment).toEqual({
      HOME: "/persist/pull",
      XDG_CACHE_HOME: "/persist/pull/cache",
    });
  });

  it("loads secrets as credentials that it alone can read", async () => {
    const unit = await unitOf(`{
      imports = [ ${configured()} ];
      services.nixos-pull.credentialFiles = { mirror = "/run/keys/mirror"; token = "/run/keys/t"; };
    }`);
    expect(unit.serviceConfig).toMatchObject({
      LoadCredential: ["mirror:/run/keys/mirror", "token:/run/keys/t"],
    });
    expect((await unitOf(configured())).serviceConfig).not.toHaveProperty("LoadCredential");
  });

  it("makes the status socket's directory in /run, and nothing elsewhere", async () => {
    const inRun = await unitOf(configured('statusSocket.path = "/run/nixos-pull/status.socket";'));
    expect(inRun.serviceConfig).toMatchObject({ RuntimeDirectory: "nixos-pull" });
    const elsewhere = await unitOf(configured('statusSocket.path = "/srv/status.socket";'));
    expect(elsewhere.serviceConfig).not.toHaveProperty("RuntimeDirectory");
  });

  it("knows the host's proxies", async () => {
    const unit = await unitOf(`{
      imports = [ ${configured()} ];
      networking.proxy.envVars.https_proxy = "http://proxy.example.org:3128";
    }`);
    expect(unit.environment).toMatchObject({ https_proxy: "http://proxy.example.org:3128" });
  });

  // A setting that systemd does not understand is dropped with no more than a warning.
  it.skipIf(spawnSync("systemd-analyze", ["--version"]).error)(
    "is understood by systemd",
    async () => {
      const unit = await unitOf(configured());
      const directory = await mkdtemp(join(tmpdir(), "nixos-pull-"));
      try {
        const file = join(directory, "nixos-pull.service");
        const service = { ...unit.serviceConfig, ExecStart: "/bin/sh" };
        await writeFile(file, `[Unit]\n${lines(unit.unitConfig)}[Service]\n${lines(service)}`);
        const { stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", file], {
          encoding: "utf8",
        });
        const complaints = stderr
          .split("\n")
          .filter((line) => line.includes(file))
          // Known since systemd 254.
          .filter((line) => !/'(RestartSteps|RestartMaxDelaySec)'/.test(line));
        expect(complaints).toEqual([]);
      } finally {
        await rm(directory, { recursive: true });
      }
    },
  );
});

describe.skipIf(noNix)("the units beside it", () => {
  it("are left alone by switches, even by those that remove them", async () => {
    const services = (await evaluate("services", configured())) as Record<string, Unit>;
    for (const [name, unit] of Object.entries(services)) {
      expect(unit, name).toMatchObject({
        restartIfChanged: false,
        stopIfChanged: false,
        unitConfig: { "X-StopOnRemoval": false },
      });
    }
    expect(Object.keys(services).sort()).toEqual([
      "nixos-pull",
      "nixos-pull-boot",
      "nixos-pull-boot-complete",
    ]);
  });

  it("hold boot-complete.target back until the verdict, without a time limit", async () => {
    const services = (await evaluate("services", configured())) as Record<string, Unit>;
    expect(services["nixos-pull-boot-complete"]).toMatchObject({
      requiredBy: ["boot-complete.target"],
      before: ["boot-complete.target"],
      serviceConfig: { Type: "oneshot", RemainAfterExit: true },
    });
    // A oneshot has none unless it is given one (systemd.service(5)).
    expect(services["nixos-pull-boot-complete"]?.serviceConfig).not.toHaveProperty(
      "TimeoutStartSec",
    );
  });
});

describe.skipIf(noNix)("the module where it is not enabled", () => {
  it.each([
    ["failures", []],
    ["warnings", []],
    ["etc", {}],
    ["systemPackages", []],
    ["services", {}],
  ])("adds nothing to %s", async (attribute, nothing) => {
    const configuration =
      '{ services.nixos-pull.settings.channel = "canary"; system.autoUpgrade.enable = true; }';
    expect(await evaluate(attribute, configuration)).toEqual(nothing);
  });

  it("puts the command line on PATH only where it is enabled", async () => {
    expect(await evaluate("systemPackages", configured())).toEqual([
      expect.stringMatching(/^nixos-pull-/),
    ]);
  });
});

import { existsSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { serveMirror } from "../support/mirror-server.ts";
import { removeTree, temporaryDirectory } from "../support/temporary.ts";
import { createSystemdHost, type HostOptions, type SystemdHost } from "./host.ts";
import { REAL_SWITCH, buildToplevel, type ToplevelOptions } from "./toplevel.ts";

const LOCK = "/run/nixos/switch-to-configuration.lock";

/** These tests are about the harness: the agent is a program that does nothing. */
let bundle: string;
beforeAll(async () => {
  const directory = await mkdtemp(join(tmpdir(), "nixos-pull-harness-"));
  bundle = join(directory, "nixos-pull.cjs");
  await writeFile(bundle, 'console.log("idle agent");\nsetInterval(() => {}, 1 << 30);\n');
  return () => removeTree(directory);
});

const system = (options: ToplevelOptions = {}): Promise<string> =>
  buildToplevel({ bundle, ...options });

/** A service that runs, differs with `version`, and has these lines too. */
function service(version: string, section: "Unit" | "Service" = "Service", line = ""): string {
  return [
    "[Unit]",
    section === "Unit" ? line : "",
    "[Service]",
    "ExecStart=/bin/sleep infinity",
    "ExecReload=/bin/true",
    `Environment=VERSION=${version}`,
    section === "Service" ? line : "",
    "[Install]",
    "WantedBy=multi-user.target",
  ].join("\n");
}

async function booted(toplevel: string, options: HostOptions = {}): Promise<SystemdHost> {
  const host = await createSystemdHost(options);
  await host.install(toplevel);
  await host.boot();
  return host;
}

test("a host boots its installed system, and boots it again", async () => {
  const toplevel = await system({
    agentConfig: { hostname: "web1" },
    units: { "web.service": service("1") },
  });
  const host = await createSystemdHost();
  expect(host.isUp).toBe(false);
  await host.install(toplevel);
  const started = performance.now();
  await host.boot();
  const bootMs = performance.now() - started;
  console.log(`boot: ${Math.round(bootMs)} ms`);
  expect(bootMs).toBeLessThan(10_000);

  expect(await host.currentSystem()).toBe(toplevel);
  expect(await host.bootedSystem()).toBe(toplevel);
  expect(await host.bootDefault()).toBe(toplevel);
  expect(await host.profile()).toEqual({ generation: 1, toplevel });
  expect(await host.generations()).toHaveLength(1);
  expect(await host.readFile("/etc/nixos-pull/config.json")).toContain('"web1"');
  expect(await host.failedUnits()).toEqual([]);
  expect(await host.unit("web.service")).toMatchObject({
    activeState: "active",
    fragmentPath: "/etc/systemd/system/web.service",
  });
  expect(await host.unit("nixos-pull.service")).toMatchObject({ activeState: "active" });
  await host.waitFor(
    async () => (await host.logs("nixos-pull.service")).includes("idle agent"),
    "what the agent says",
  );
  expect(await host.succeed("nix-store", "--verify", "--check-contents")).toBe("");
  expect(await host.succeed("nix-store", "--gc", "--print-roots")).toContain("/run/current-system");
  expect((await host.exec("hostname")).stdout.trim()).toBe("web1");

  const before = host.bootId();
  await host.restart();
  expect(host.bootId()).not.toBe(before);
  expect(await host.currentSystem()).toBe(toplevel);
  await host.powerOff();
  expect(host.isUp).toBe(false);
  expect(await host.currentSystem()).toBeNull();
  expect(await host.logs("nixos-pull.service")).toContain("idle agent");
});

test("several hosts at once, and nothing is left of them", async () => {
  const toplevel = await system();
  const hosts = await Promise.all(
    (["shared", "private", "private"] as const).map((network, n) =>
      createSystemdHost({ name: `web${n}`, network, until: "file" }),
    ),
  );
  try {
    await Promise.all(
      hosts.map(async (host) => {
        await host.install(toplevel);
        await host.boot();
      }),
    );
    const ids = hosts.map((host) => host.bootId());
    expect(new Set(ids).size).toBe(3);
    await hosts[1]?.powerCut();
    expect(hosts.map((host) => host.isUp)).toEqual([true, false, true]);
    expect(await hosts[0]?.isBooted()).toBe(true);
  } finally {
    await Promise.all(hosts.map((host) => host.dispose()));
  }
  for (const host of hosts) expect(existsSync(host.root)).toBe(false);
});

test("switch, test, boot and dry-activate do what each says", async () => {
  const first = await system({ generation: "1" });
  const second = await system({ generation: "2", units: { "new.service": service("1") } });
  const host = await booted(first);
  await host.importClosure(second);

  expect(await host.switchTo(second, "")).toMatchObject({ exitCode: 1 });
  const usage = await host.switchTo(second, "restart");
  expect(usage).toMatchObject({ exitCode: 1 });
  expect(usage.stderr).toContain("check");
  expect(await host.switchTo(second, "check")).toMatchObject({ exitCode: 0 });

  expect(await host.switchTo(second, "dry-activate")).toMatchObject({ exitCode: 0 });
  expect([await host.currentSystem(), await host.bootDefault()]).toEqual([first, first]);

  expect(await host.switchTo(second, "boot")).toMatchObject({ exitCode: 0 });
  expect([await host.currentSystem(), await host.bootDefault()]).toEqual([first, second]);
  expect(await host.switchTo(first, "boot")).toMatchObject({ exitCode: 0 });

  const tested = await host.switchTo(second, "test");
  expect(tested, tested.stderr).toMatchObject({ exitCode: 0 });
  expect([await host.currentSystem(), await host.bootDefault()]).toEqual([second, first]);
  expect(await host.bootedSystem()).toBe(first);
  expect(await host.unit("new.service")).toMatchObject({ activeState: "active" });

  expect(await host.switchTo(first, "switch")).toMatchObject({ exitCode: 0 });
  expect(await host.unit("new.service")).toMatchObject({ activeState: "inactive" });
  expect(await host.switchTo(second, "switch")).toMatchObject({ exitCode: 0 });
  expect([await host.currentSystem(), await host.bootDefault()]).toEqual([second, second]);
});

test("exit codes: 1 check and boot loader, 2 activation, 4 units, 11 lock, 100 init", async () => {
  const first = await system({ generation: "1" });
  const host = await booted(first);
  const result = async (options: ToplevelOptions, action: string) => {
    const toplevel = await system({ generation: "2", ...options });
    await host.importClosure(toplevel);
    const { exitCode, stderr, stdout } = await host.switchTo(toplevel, action);
    return { toplevel, exitCode, output: stdout + stderr };
  };

  expect(await result({ checkFails: true }, "check")).toMatchObject({ exitCode: 1 });
  expect(await result({ checkFails: true }, "switch")).toMatchObject({ exitCode: 1 });
  expect(await result({ bootLoaderFails: true }, "switch")).toMatchObject({ exitCode: 1 });
  expect([await host.currentSystem(), await host.bootDefault()]).toEqual([first, first]);

  const init = await result({ initInterface: "2" }, "test");
  expect(init).toMatchObject({ exitCode: 100 });
  expect(init.output).toContain("until you reboot");
  expect([await host.currentSystem(), await host.bootDefault()]).toEqual([first, first]);
  const initSwitch = await result({ initInterface: "2" }, "switch");
  expect(initSwitch).toMatchObject({ exitCode: 100 });
  expect([await host.currentSystem(), await host.bootDefault()]).toEqual([first, init.toplevel]);

  const activation = await result({ activateFails: true }, "test");
  expect(activation).toMatchObject({ exitCode: 2 });
  expect(await host.currentSystem()).toBe(activation.toplevel);
  expect(await host.switchTo(first, "switch")).toMatchObject({ exitCode: 0 });

  const oneshot =
    "[Service]\nType=oneshot\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n";
  const unit = await result({ units: { "bad.service": oneshot } }, "test");
  expect(unit).toMatchObject({ exitCode: 4 });
  expect(unit.output).toContain("warning: the following units failed: bad.service");
  expect(await host.failedUnits()).toEqual(["bad.service"]);
  const loop =
    "[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=60\n[Install]\nWantedBy=multi-user.target\n";
  expect(await result({ units: { "loop.service": loop } }, "test")).toMatchObject({ exitCode: 4 });
  expect(await host.switchTo(first, "switch")).toMatchObject({ exitCode: 0 });

  const slow = result({ switchSleep: 600, switchSleepAt: "stopped" }, "test");
  await host.waitFor(
    async () => (await host.exec("pgrep", "-f", "sleep 600")).exitCode === 0,
    "a switch that sleeps",
  );
  expect(await host.switchTo(first, "test")).toMatchObject({ exitCode: 11 });
  // The lock goes with its owner, whatever child of it lives on.
  await host.succeed("pkill", "-9", "-f", "switch-to-configuration test");
  expect(await host.switchTo(first, "test")).toMatchObject({ exitCode: 0 });
  await host.succeed("pkill", "-f", "sleep 600");
  expect(await slow).not.toMatchObject({ exitCode: 0 });
});

const FAILING =
  "[Service]\nType=oneshot\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n";

/** Activates a system on a host; gives how that ended and all that it printed. */
async function activated(host: SystemdHost, options: ToplevelOptions, action = "test") {
  const toplevel = await system({ generation: "2", ...options });
  await host.importClosure(toplevel);
  const { exitCode, stderr, stdout } = await host.switchTo(toplevel, action);
  return { toplevel, exitCode, output: stdout + stderr };
}

test("exit code 4 hides a failed activation, and the old failures come last", async () => {
  const sick = { "sick.service": FAILING };
  const host = await booted(await system({ generation: "1", units: sick }));
  const { toplevel, exitCode, output } = await activated(host, {
    activateFails: true,
    units: sick,
  });
  expect(exitCode).toBe(4);
  expect(output).toContain("Activation script snippet 'failing' failed (1)");
  expect(output).toContain("Failed to run activate script");
  expect(output).toContain("warning: the following units failed: sick.service");
  expect(output.trimEnd().split("\n").slice(-20).join("\n")).toContain("sick.service");
  expect(await host.currentSystem()).toBe(toplevel);
});

test("a unit whose dependency fails is inactive, not failed, and the exit code is 4", async () => {
  const web = (version: string, line: string): Record<string, string> => ({
    "web.service": `[Unit]\n${line}\n${service(version)}`,
  });
  const host = await booted(await system({ generation: "1", units: web("1", "") }));
  const broken = "[Unit]\nAssertPathExists=/no/such/file\n";
  const { exitCode, output } = await activated(host, {
    units: {
      ...web("2", "Requires=dependency.service\nAfter=dependency.service"),
      "dependency.service": `${broken}[Service]\nType=oneshot\nExecStart=/bin/false\n`,
    },
  });
  expect(exitCode, output).toBe(4);
  expect(output).toContain("Failed to start web.service");
  expect((await host.unit("web.service")).activeState).toBe("inactive");
  expect(await host.failedUnits()).toEqual([]);
});

test("a changed inhibitor refuses to switch and to check, and lets boot and dry-activate be", async () => {
  const first = await system({ generation: "1", inhibitors: { dbus: "dbus" } });
  const host = await booted(first);
  const results = new Map<string, number | null>();
  for (const action of ["check", "dry-activate", "boot", "test", "switch"]) {
    const { exitCode, output } = await activated(host, { inhibitors: { dbus: "broker" } }, action);
    results.set(action, exitCode);
    if (exitCode !== 0) {
      expect(output).toContain("dbus : dbus -> broker");
      expect(output).toContain(
        "Pre-switch check 'switchInhibitors' failed\nPre-switch checks failed",
      );
    }
  }
  expect(Object.fromEntries(results)).toEqual({
    ...{ check: 1, "dry-activate": 0, boot: 0, test: 1, switch: 1 },
  });
  expect(await host.currentSystem()).toBe(first);
  const second = await system({ generation: "2", inhibitors: { dbus: "broker" } });
  const unchecked = await host.exec(
    ...(["env", "NIXOS_NO_CHECK=1", `${second}/bin/switch-to-configuration`, "test"] as const),
  );
  expect(unchecked.exitCode, unchecked.stderr).toBe(0);
  expect(await host.currentSystem()).toBe(second);
});

test("a user's manager without a bus makes the exit code 4, with no unit failed", async () => {
  const host = await booted(await system({ generation: "1" }));
  await host.succeed("useradd", "--create-home", "guest");
  await host.succeed("mkdir", "-p", "/var/lib/systemd/linger");
  await host.succeed("touch", "/var/lib/systemd/linger/guest");
  await host.succeed("systemctl", "restart", "systemd-logind");
  await host.waitFor(
    async () => (await host.succeed("loginctl", "list-users", "--no-legend")).includes("guest"),
    "a user who lingers",
  );
  const { exitCode, output } = await activated(host, {});
  expect(exitCode, output).toBe(4);
  expect(output).toContain("warning: user activation for guest failed");
  expect(await host.failedUnits()).toEqual([]);
});

test("a unit file that cannot be parsed ends the switch with 1, before anything is touched", async () => {
  const first = await system({ generation: "1", units: { "web.service": service("1") } });
  const host = await booted(first);
  const { exitCode, output } = await activated(host, {
    units: { "web.service": `${service("2")}\n[Service]\nthis is no setting\n` },
  });
  expect(exitCode, output).toBe(1);
  expect(output).toContain("Failed to parse");
  expect(await host.currentSystem()).toBe(first);
});

test.skipIf(REAL_SWITCH !== undefined)(
  "the stand-in dies with any code at any stage, and in 24.11 waits for its lock",
  async () => {
    const first = await system({ generation: "1" });
    const host = await booted(first);
    const late = await activated(host, { switchDiesAt: "activated", switchDiesWith: 11 });
    expect(late).toMatchObject({ exitCode: 11 });
    expect(late.output).not.toContain("lock");
    expect(await host.currentSystem()).toBe(late.toplevel);
    const panic = await activated(host, { switchDiesAt: "stopped", switchDiesWith: 101 });
    expect(panic).toMatchObject({ exitCode: 101 });
    expect(await host.currentSystem()).toBe(late.toplevel);

    const old = await system({ generation: "3", switchEra: "24.11", checkFails: true });
    await host.importClosure(old);
    await host.succeed("systemd-run", "--unit=locker", "flock", LOCK, "sleep", "infinity");
    await host.waitFor(
      async () => (await host.exec("flock", "--nonblock", LOCK, "true")).exitCode !== 0,
      "a held lock",
    );
    const waiting = host.switchTo(old, "test");
    await host.waitFor(
      async () => (await host.exec("pgrep", "-f", "^flock 9$")).exitCode === 0,
      "a switch that waits",
    );
    expect(await host.currentSystem()).toBe(late.toplevel);
    await host.succeed("systemctl", "stop", "locker");
    expect(await waiting).toMatchObject({ exitCode: 0 });
    expect(await host.currentSystem()).toBe(old);
    expect(await host.switchTo(old, "check")).toMatchObject({ exitCode: 1 });
  },
);

test("changed and removed units are stopped, restarted, reloaded or left, as their flags say", async () => {
  const removable = {
    "gone.service": service("1"),
    "kept.service": service("1", "Unit", "X-StopOnRemoval=false"),
  };
  const flags: Record<string, string> = {
    "plain.service": "",
    "left.service": "X-RestartIfChanged=false",
    "restarted.service": "X-StopIfChanged=false",
    "reloaded.service": "X-ReloadIfChanged=true",
  };
  const units = (version: string): Record<string, string> =>
    Object.fromEntries(
      Object.entries(flags).map(([name, line]) => [name, service(version, "Service", line)]),
    );
  const same = { "same.service": service("1") };
  const triggered = (trigger: string): Record<string, string> => ({
    "triggered.service": service("1", "Unit", `X-Reload-Triggers=${trigger}`),
  });
  const first = await system({
    generation: "1",
    units: { ...removable, ...units("1"), ...same, ...triggered("1") },
  });
  const second = await system({
    generation: "2",
    units: { ...units("2"), ...same, ...triggered("2") },
  });
  const host = await booted(first);
  await host.importClosure(second);
  await host.succeed("systemd-run", "--unit=manual", "/bin/sleep", "infinity");
  const names = [
    ...Object.keys({ ...removable, ...flags, ...same, ...triggered("1") }),
    "manual.service",
    "dbus.service",
    "nixos-pull.service",
  ];
  const ids = async (): Promise<Record<string, string>> =>
    Object.fromEntries(
      await Promise.all(
        names.map(async (name) => [name, (await host.unit(name)).invocationId] as const),
      ),
    );
  const before = await ids();

  const { exitCode, stderr } = await host.switchTo(second, "switch");
  expect(exitCode, stderr).toBe(0);
  expect(stderr).toContain("stopping the following units: gone.service, plain.service\n");
  expect(stderr).toContain("NOT restarting the following changed units: left.service\n");
  expect(stderr).toContain("reloading the following units: reloaded.service, triggered.service\n");
  expect(stderr).toContain("restarting the following units: restarted.service\n");
  expect(stderr).toContain("starting the following units: plain.service\n");

  expect((await host.unit("gone.service")).activeState).toBe("inactive");
  const after = await ids();
  const changed = names.filter((name) => after[name] !== before[name]);
  expect(changed.sort()).toEqual(["gone.service", "plain.service", "restarted.service"]);
  expect((await host.unit("kept.service")).activeState).toBe("active");
});

test("the agent's unit: changed, broken and removed", async () => {
  const host = await booted(await system({ generation: "1" }));
  const switchTo = async (options: ToplevelOptions): Promise<number | null> => {
    const toplevel = await system(options);
    await host.importClosure(toplevel);
    return (await host.switchTo(toplevel, "switch")).exitCode;
  };
  const before = await host.unit("nixos-pull.service");
  expect(await switchTo({ generation: "2", agent: "changed" })).toBe(0);
  expect((await host.unit("nixos-pull.service")).invocationId).not.toBe(before.invocationId);
  expect(await switchTo({ generation: "3", agent: "broken" })).toBe(4);
  expect(await switchTo({ generation: "4", agent: "removed" })).toBe(0);
  expect((await host.unit("nixos-pull.service")).loadState).toBe("not-found");
  expect(await host.readFile("/run/current-system/sw/bin/nixos-pull")).toBeNull();
});

test("a power cut in the middle of a switch boots the boot default", async () => {
  const first = await system({ generation: "1", units: { "web.service": service("1") } });
  const slow = { switchSleep: 600, switchSleepAt: "activated" } as const;
  const second = await system({ generation: "2", units: { "web.service": service("2") }, ...slow });
  const host = await booted(first);
  await host.importClosure(second);
  for (const [action, expected] of [
    ["test", first],
    ["switch", second],
  ] as const) {
    const cut = host.switchTo(second, action);
    await host.waitFor(
      async () => (await host.currentSystem()) === second,
      "the second system activated",
    );
    await host.powerCut();
    expect((await cut).exitCode).not.toBe(0);
    expect(host.isUp).toBe(false);
    await host.boot();
    expect(await host.currentSystem()).toBe(expected);
    expect(await host.bootedSystem()).toBe(expected);
    expect(await host.unit("web.service"), await host.logs("web.service")).toMatchObject({
      activeState: "active",
    });
  }
  // What was switched away from is a boot default no more; one that does not boot is noticed.
  const dead = await system({ generation: "3", bootFails: true });
  await host.importClosure(dead);
  expect(await host.switchTo(dead, "switch")).toMatchObject({ exitCode: 0 });
  await host.powerCut();
  await expect(host.boot()).rejects.toThrow("multi-user.target");
});

test("a transient unit survives the switch that replaces whoever started it", async () => {
  const first = await system({ generation: "1" });
  const second = await system({ generation: "2", agent: "changed" });
  const host = await booted(first);
  await host.importClosure(second);
  const agent = (await host.unit("nixos-pull.service")).invocationId;
  await host.succeed(
    ...(["systemd-run", "--unit=switch", "--no-block", "--property=RemainAfterExit=yes"] as const),
    ...[`${second}/bin/switch-to-configuration`, "switch"],
  );
  await host.waitFor(
    async () => (await host.unit("switch.service")).subState === "exited",
    "the end of the switch",
  );
  expect(await host.unit("switch.service")).toMatchObject({ result: "success" });
  expect(await host.currentSystem()).toBe(second);
  expect((await host.unit("nixos-pull.service")).invocationId).not.toBe(agent);
  expect(await host.logs("switch.service")).toContain(
    "stopping the following units: nixos-pull.service",
  );
});

test("a private network reaches mirrors until it is cut, by the test or by the system", async () => {
  const directory = await temporaryDirectory();
  await writeFile(join(directory, "hello"), "hello");
  const mirror = await serveMirror(directory);
  const first = await system({ generation: "1" });
  const second = await system({ generation: "2", cutNetwork: true });
  const host = await booted(first, { network: "private" });
  await host.importClosure(second);
  const address = await host.reach(`${mirror.url}/hello`);
  const reached = async (): Promise<boolean> =>
    (await host.exec("curl", "--silent", "--max-time", "2", address)).stdout === "hello";

  expect(await reached()).toBe(true);
  await host.cutNetwork();
  expect(await reached()).toBe(false);
  await host.restoreNetwork();
  await host.waitFor(reached, "the mirror");

  expect(await host.switchTo(second, "test")).toMatchObject({ exitCode: 0 });
  expect(await reached()).toBe(false);
  expect(await host.switchTo(first, "test")).toMatchObject({ exitCode: 0 });
  await host.waitFor(reached, "the mirror");

  expect(await host.switchTo(second, "switch")).toMatchObject({ exitCode: 0 });
  await host.powerCut();
  await host.boot();
  expect(await reached()).toBe(false);
});

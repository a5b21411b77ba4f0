import { execFileSync, spawnSync } from "node:child_process";
import { mkdir, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { manifestSchema, type Manifest } from "../../agent/core/formats/manifest.ts";
import { generateKey } from "../../agent/core/formats/signing-key.ts";
import { SYSTEM_FILE, buildSystem } from "../support/closure.ts";
import {
  nixosPull,
  startCommand,
  testEnvironment,
  type CommandOutput,
} from "../support/nixos-pull.ts";
import { nix, runNix } from "../support/real-nix.ts";
import { createHost, createOperator, type Operator } from "../support/sandbox.ts";
import { publishedHosts, type PublishedHost } from "../support/published.ts";
import { temporaryDirectory } from "../support/temporary.ts";

/** What `publish --json` printed. */
interface Release {
  readonly sequence: number;
  readonly hosts: Record<string, PublishedHost>;
  readonly dropped: string[];
}

function releaseOf({ stdout }: CommandOutput): Release {
  return { ...(JSON.parse(stdout) as Release), hosts: publishedHosts(stdout) };
}

/** The manifest in force, unsigned. */
async function manifestOf(mirror: string): Promise<Manifest> {
  const file = join(mirror, "channels/stable/manifest.json");
  const { payload } = JSON.parse(await readFile(file, "utf8"));
  return manifestSchema.parse(JSON.parse(Buffer.from(payload, "base64").toString()));
}

/** `publish` as the operator does it, to whatever end. */
function attempt(operator: Operator, ...args: string[]): Promise<CommandOutput> {
  return nixosPull(["publish", "-m", operator.mirror, "-k", operator.keyFile, ...args]);
}

function buildGenerations(...generations: string[]): Promise<string[]> {
  return Promise.all(generations.map((generation) => buildSystem({ generation })));
}

/** A directory with system.nix and, for each way to name a system, a file that does. */
async function sourceDirectory(): Promise<string> {
  const directory = await temporaryDirectory();
  // Flakes are evaluated purely, where Nix does not say what machine this is.
  const machine = runNix("nix-instantiate", ["--eval", "-E", "builtins.currentSystem"]).trim();
  const system = (await readFile(SYSTEM_FILE, "utf8")).replace("builtins.currentSystem", machine);
  const generation = (of: number): string =>
    `(import ./system.nix { generation = "${of}"; }).system`;
  const files: Record<string, string> = {
    "system.nix": system,
    "attributes.nix": `{ hash = ${generation(11)}; nested.dashA = ${generation(12)}; }`,
    "alone.nix": generation(13),
    "flake.nix": `{
      outputs = { self }: {
        nixosConfigurations.web1.config.system.build.toplevel = ${generation(14)};
        packages.full = ${generation(15)};
      };
    }`,
    "broken.nix": `derivation {
      name = "broken";
      system = builtins.currentSystem;
      builder = "/bin/sh";
      args = [ "-c" "echo the compiler is out of order >&2; exit 7" ];
    }`,
    "hosts.json": JSON.stringify({
      text: "./attributes.nix#hash",
      object: { system: "alone.nix", activation: { mode: "boot" } },
      flake: ".#web1",
    }),
    "attrset.nix": `{ one = ${generation(11)}; two = { system = ${generation(12)}; activation.mode = "test"; }; }`,
    "function.nix": `{ of ? "13" }: { three = (import ./system.nix { generation = of; }).system; }`,
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
  return directory;
}

test("a system comes from a store path, a derivation, a Nix file or a flake, all in one release", async () => {
  const [operator, directory] = await Promise.all([createOperator(), sourceDirectory()]);
  const [path, ...built] = await buildGenerations("10", "11", "12", "13", "14", "15");
  const drv = runNix("nix-instantiate", [
    SYSTEM_FILE,
    "-A",
    "system",
    "--argstr",
    "generation",
    "16",
  ]);
  const sources: Record<string, string> = {
    path: path!,
    hash: `${directory}/attributes.nix#hash`,
    dasha: `${directory}/attributes.nix -A nested.dashA`,
    alone: relative(process.cwd(), `${directory}/alone.nix`),
    flake: `path:${directory}#web1`,
    full: `path:${directory}#packages.full`,
    drv: drv.trim(),
  };
  const { hosts } = releaseOf(await operator.publish(sources, "--json"));
  const toplevels = [path, ...built, await buildSystem({ generation: "16" })];
  expect(Object.values(hosts).map(({ toplevel }) => toplevel)).toEqual(toplevels);
  expect(Object.keys((await manifestOf(operator.mirror)).hosts).sort()).toEqual(
    Object.keys(sources).sort(),
  );
  const verified = await nixosPull(["verify", operator.mirror, "-p", operator.publicKey]);
  expect(verified.exitCode, verified.stderr).toBe(0);
});

test("hosts come from a JSON file, a Nix file or a Nix function, and from the command line too", async () => {
  const [operator, directory] = await Promise.all([createOperator(), sourceDirectory()]);
  const [g10, g11, g12, g13, g14] = await buildGenerations("10", "11", "12", "13", "14");
  const rows: [
    file: string,
    hosts: Record<string, [toplevel: string | undefined, mode: string]>,
  ][] = [
    ["hosts.json", { text: [g11, "switch"], object: [g13, "boot"], flake: [g14, "switch"] }],
    ["attrset.nix", { one: [g11, "switch"], two: [g12, "test"] }],
    ["function.nix", { three: [g13, "switch"] }],
  ];
  for (const [file, expected] of rows) {
    const extra = `extra=${g10}`;
    const published = await attempt(
      operator,
      "--hosts",
      join(directory, file),
      "--host",
      extra,
      "--json",
    );
    expect(published.exitCode, published.stderr).toBe(0);
    const found = Object.entries(releaseOf(published).hosts).map(([name, { toplevel, mode }]) => [
      name,
      [toplevel, mode],
    ]);
    expect(Object.fromEntries(found), file).toEqual({ ...expected, extra: [g10, "switch"] });
  }
  const { defaults, hosts } = await manifestOf(operator.mirror);
  expect(defaults.activation.mode).toBe("switch");
  expect(hosts["three"]).not.toHaveProperty("activation");
});

test("a hosts file's checks, groups and machine stand in the release, also of a new host", async () => {
  const [operator, directory] = await Promise.all([createOperator(), sourceDirectory()]);
  const command = { kind: "command", name: "true", command: ["/bin/true"], timeout: "10s" };
  const site = { kind: "http", name: "site", url: "http://127.0.0.1/", status: 200 };
  const wanted = {
    plain: { activation: { checks: [command] }, groups: ["canary"] },
    boots: { activation: { mode: "boot", checks: [] }, machineId: "ab".repeat(32) },
    both: { activation: { mode: "test", checks: [command, { ...site, timeout: "5s" }] } },
    usual: { activation: { mode: "switch" } },
  };
  const sources = Object.entries(wanted).map(([name, rest]) => [
    name,
    { system: "alone.nix", ...rest },
  ]);
  await writeFile(join(directory, "checks.json"), JSON.stringify(Object.fromEntries(sources)));
  const system = `import ${directory}/alone.nix`;
  await writeFile(
    join(directory, "checks.nix"),
    `builtins.mapAttrs (_: rest: { system = ${system}; } // rest)
      (builtins.fromJSON (builtins.readFile ${join(directory, "wanted.json")}))`,
  );
  await writeFile(join(directory, "wanted.json"), JSON.stringify(wanted));
  const expected = {
    plain: { activation: { mode: "switch", checks: [command] }, groups: ["canary"] },
    boots: wanted.boots,
    both: wanted.both,
    usual: {},
  };
  for (const file of ["checks.json", "checks.nix"]) {
    const published = await attempt(operator, "--hosts", join(directory, file));
    expect(published.exitCode, published.stderr).toBe(0);
    const { hosts } = await manifestOf(operator.mirror);
    const found = Object.entries(hosts).map(([name, { activation, groups, machineId }]) => [
      name,
      {
        ...(activation && { activation }),
        ...(groups && { groups }),
        ...(machineId && { machineId }),
      },
    ]);
    expect(Object.fromEntries(found), file).toEqual(expected);
  }
  // Another host is published beside them, and theirs are kept.
  const kept = await attempt(
    operator,
    ...["--hosts", join(directory, "attrset.nix"), "--keep-hosts", "--mode", "boot"],
  );
  expect(kept.exitCode, kept.stderr).toBe(0);
  const { hosts } = await manifestOf(operator.mirror);
  expect(hosts["plain"]?.activation).toEqual(expected.plain.activation);
  expect(hosts["usual"]?.activation).toEqual({ mode: "switch" });

  await writeFile(join(directory, "odd.nix"), `{ web1 = { system = ${system}; tags = [ ]; }; }`);
  const refused = await attempt(operator, "--hosts", join(directory, "odd.nix"));
  expect(refused.exitCode).toBe(3);
  expect(refused.stderr).toMatch(/odd\.nix: web1: unknown key "tags"/);
});

test("equal systems share an archive, unchanged ones keep theirs, --keep-hosts keeps hosts and modes", async () => {
  const operator = await createOperator();
  const archives = (): Promise<string[]> => readdir(join(operator.mirror, "archives"));
  const [a, b, c, d] = (await buildGenerations("1", "2", "3", "4")) as [
    string,
    string,
    string,
    string,
  ];

  const one = releaseOf(
    await operator.publish({ web1: a, web2: a, db1: b, old: c }, "--json", "--mode", "boot"),
  );
  expect(one.hosts["web2"]!.archive).toEqual(one.hosts["web1"]!.archive);
  // One for each system, and one for what they share.
  expect(await archives()).toHaveLength(4);
  expect(Object.values(one.hosts).map(({ reused }) => reused)).toEqual([
    false,
    false,
    false,
    false,
  ]);

  const written = await operator.publish({ web1: d, db1: b, old: c }, "--mode", "boot", "--json");
  expect(written.stderr).toContain("no longer names web2; --keep-hosts keeps it");
  const two = releaseOf(written);
  expect(two).toMatchObject({
    sequence: 2,
    dropped: ["web2"],
    hosts: { web1: { reused: false }, db1: { reused: true, archive: one.hosts["db1"]!.archive } },
  });
  expect(await archives()).toHaveLength(5);

  const kept = await operator.publish({ web2: a }, "--keep-hosts", "--json");
  expect(kept.stderr).not.toContain("no longer names");
  expect(releaseOf(kept)).toMatchObject({
    dropped: [],
    hosts: { web2: { mode: "switch", archive: one.hosts["web1"]!.archive } },
  });
  const { hosts, defaults } = await manifestOf(operator.mirror);
  const modes = Object.entries(hosts).map(([name, { toplevel, activation }]) => [
    name,
    [toplevel, activation?.mode ?? defaults.activation.mode],
  ]);
  expect(Object.fromEntries(modes)).toEqual({
    web1: [d, "boot"],
    db1: [b, "boot"],
    old: [c, "boot"],
    web2: [a, "switch"],
  });
  expect(await archives()).toHaveLength(5);
});

test("a system that would lose its host is refused, and nothing is packed", async () => {
  const operator = await createOperator();
  const [db1, nameless, agentless] = await Promise.all([
    buildSystem({ name: "db1" }),
    buildSystem({ name: "db1", hostname: "" }),
    buildSystem({ agent: false }),
  ]);
  const refused = await attempt(operator, "--host", `web1=${db1}`, "--host", `db1=${db1}`);
  expect(refused).toMatchObject({ exitCode: 4, stdout: "" });
  expect(refused.stderr).toMatch(
    /HOSTNAME_MISMATCH: web1: its system calls itself "db1"\. .*networking\.hostName/,
  );
  expect(await readdir(join(operator.mirror, "archives"))).toEqual([]);
  const lost = await attempt(operator, "--host", `web1=${agentless}`);
  expect(lost.exitCode).toBe(10);
  expect(lost.stderr).toMatch(/AGENT_MISSING: .*web1: .*--allow-without-agent HOST/);
  const allow = ["--allow-without-agent", "web1"];
  const allowed = await attempt(operator, "--host", `web1=${agentless}`, ...allow);
  expect(allowed.exitCode).toBe(0);
  expect(allowed.stderr).toContain("web1: without nixos-pull after this release");
  const unknown = await attempt(operator, "--host", `db1=${db1}`, ...allow);
  expect(unknown.stderr).toMatch(/USAGE: --allow-without-agent: .*found web1/);
  expect(await attempt(operator, "--host", `web1=${nameless}`)).toMatchObject({ exitCode: 0 });
});

test("a system for another platform than before is refused unless that is allowed", async () => {
  const operator = await createOperator();
  const [arm, intel] = await Promise.all([
    buildSystem({ platform: "aarch64-linux" }),
    buildSystem({ platform: "x86_64-linux" }),
  ]);
  // The first release of a host has nothing to compare with.
  expect(await attempt(operator, "--host", `web1=${intel}`)).toMatchObject({ exitCode: 0 });
  const archives = await readdir(join(operator.mirror, "archives"));
  const refused = await attempt(operator, "--host", `web1=${arm}`);
  expect(refused).toMatchObject({ exitCode: 4, stdout: "" });
  expect(refused.stderr).toMatch(
    /PLATFORM_MISMATCH: web1: its new system is for aarch64-linux, but its system of release 1 is for x86_64-linux\. .*--allow-platform HOST/,
  );
  expect(await readdir(join(operator.mirror, "archives"))).toEqual(archives);
  const allowed = await attempt(operator, "--host", `web1=${arm}`, "--allow-platform", "web1");
  expect(allowed.exitCode).toBe(0);
  expect(allowed.stderr).toContain("x86_64-linux machines refuse it");
  const unknown = await attempt(operator, "--host", `web1=${arm}`, "--allow-platform", "db1");
  expect(unknown.stderr).toMatch(/USAGE: --allow-platform: .*found db1/);
});

test("sequences only rise, and a release signed by another key is not overwritten unasked", async () => {
  const operator = await createOperator();
  const stranger = join(operator.directory, "stranger.secret");
  await writeFile(stranger, generateKey("stranger-1").secret, { mode: 0o600 });
  const host = ["--host", `web1=${await buildSystem()}`];
  const rows: [args: string[], exitCode: number, stdout: RegExp, stderr: RegExp][] = [
    [
      ["-k", operator.keyFile, "--sequence", "7"],
      0,
      /^Published release 7 of stable, signed by test-1, /,
      /./,
    ],
    [
      ["-k", operator.keyFile, "--sequence", "6"],
      10,
      /^$/,
      /PUBLISH_FAILED: .*more than .*7, found 6/,
    ],
    [
      ["-k", operator.keyFile, "--sequence", "7"],
      10,
      /^$/,
      /PUBLISH_FAILED: .*more than .*7, found 7/,
    ],
    [
      ["-k", operator.keyFile],
      0,
      /^Published release 8 of stable.*\nHOST .* DOWNLOADS AFTER 7\nweb1 .* nothing\n/,
      /./,
    ],
    [["-k", stranger], 10, /^$/, /PUBLISH_FAILED: .*cannot be read with these keys.*--new-epoch/],
    [["-k", stranger, "--channel", "beta"], 0, /^Published release 1 of beta/, /./],
    [
      ["-k", stranger, "--sequence", "9"],
      0,
      /^Published release 9 .* signed by stranger-1, .*\nHOST .*\nweb1 +[0-9a-z]{7}-web1-1 +switch +[\d.]+ KiB in 5 paths\n/,
      /./,
    ],
  ];
  for (const [args, exitCode, stdout, stderr] of rows) {
    const name = args.slice(2).join(" ");
    const before = await manifestOf(operator.mirror).catch(() => null);
    const output = await nixosPull(["publish", "-m", operator.mirror, ...host, ...args]);
    expect(output.exitCode, `${name}: ${output.stderr}`).toBe(exitCode);
    expect(output.stdout, name).toMatch(stdout);
    expect(output.stderr, name).toMatch(stderr);
    if (exitCode !== 0) expect(await manifestOf(operator.mirror), name).toEqual(before);
  }
});

test("what cannot be published is told, and nothing is", async () => {
  const [operator, directory, system] = await Promise.all([
    createOperator(),
    sourceDirectory(),
    buildSystem(),
  ]);
  const { keyFile, mirror } = operator;
  await writeFile(join(directory, "bad.json"), '{ "web1": { "sytem": "x.nix" } }');
  await writeFile(join(directory, "readable.secret"), generateKey("k").secret, { mode: 0o644 });
  const web1 = ["--host", `web1=${system}`];
  const key = ["-k", keyFile];
  const rows: [args: string[], exitCode: number, message: RegExp][] = [
    [
      [...key, "--host", `web1=${SYSTEM_FILE}#notASystem`],
      8,
      /NOT_A_SYSTEM: web1: expected .*-library-1\.0 without .*bin\/switch-to-configuration/,
    ],
    [
      [...key, "--host", `web1=${directory}/broken.nix`],
      10,
      /BUILD_FAILED: web1: error: builder[^]*the compiler is out of order/,
    ],
    [
      [...key, "--host", `web1=${SYSTEM_FILE}#missing`],
      10,
      /BUILD_FAILED: [^]*attribute 'missing'/,
    ],
    [
      [...key, "--host", `web1=path:${directory}#missing`],
      10,
      /BUILD_FAILED: [^]*nixosConfigurations\.missing/,
    ],
    [[...key, "--host", `web1=/nix/store/${"0".repeat(32)}-gone`], 10, /BUILD_FAILED: [^]*-gone/],
    [
      [...key, "--host", "web1=/nix/store/short"],
      2,
      /USAGE: --host: web1: expected a store path, found/,
    ],
    [
      [...key, "--host", "web1=elsewhere"],
      2,
      /USAGE: --host: web1: expected .*FLAKE#ATTRIBUTE, found "elsewhere"/,
    ],
    [[...key, "--host", system], 2, /USAGE: --host: expected NAME=SOURCE/],
    [[...key, "--host", `-web=${system}`], 2, /USAGE: --host: expected NAME=SOURCE/],
    [[...key, ...web1, ...web1], 2, /USAGE: expected each host once, found web1 twice/],
    [key, 2, /USAGE: expected at least one host/],
    [web1, 2, /USAGE: expected --store-key or --key/],
    [
      ["-k", `${keyFile}.missing`, ...web1],
      3,
      /KEY_INVALID: .*\.missing: expected a secret key file, found none/,
    ],
    [["-k", SYSTEM_FILE, ...web1], 3, /KEY_INVALID: .*system\.nix: expected a secret key/],
    [
      ["-k", join(directory, "readable.secret")],
      2,
      /readable\.secret can be read by others; chmod 600/,
    ],
    [
      [...key, "--hosts", join(directory, "bad.json")],
      3,
      /CONFIG_INVALID: .*bad\.json: web1: expected a source/,
    ],
    [[...key, "--hosts", join(directory, "flake.nix")], 10, /BUILD_FAILED: /],
  ];
  for (let at = 0; at < rows.length; at += 4) {
    await Promise.all(
      rows.slice(at, at + 4).map(async ([args, exitCode, message], within) => {
        // A mirror each: one that is locked would be refused for that.
        const output = await nixosPull(["publish", "-m", `${mirror}-${at + within}`, ...args]);
        const name = args.join(" ");
        expect(output.exitCode, `${name}\n${output.stderr}`).toBe(exitCode);
        expect(output.stderr, name).toMatch(message);
        expect(output.stdout, name).toBe("");
        const left = await readdir(`${mirror}-${at + within}`, { recursive: true }).catch(() => []);
        expect(
          left.filter((file) => !/^(archives|\.publish(\/lock)?)$/.test(file)),
          name,
        ).toEqual([]);
      }),
    );
  }
});

test("a hosts file that is not there is a matter of the command line, not of the host", async () => {
  const operator = await createOperator();
  const { stderr } = await attempt(operator, "--hosts", join(operator.directory, "gone.json"));
  expect(stderr).toMatch(/CONFIG_NOT_FOUND: .*gone\.json/);
});

test("the same systems and key give the same archives; --json tells everything; paths may be relative", async () => {
  const operator = await createOperator();
  const [a, b] = (await buildGenerations("1", "2")) as [string, string];
  const other = join(operator.directory, "other");
  const json = releaseOf(await operator.publish({ web1: a, web2: b }, "--json"));
  const args = [
    "-k",
    relative(process.cwd(), operator.keyFile),
    // Of another fleet, as far as the key is concerned.
    "--memory",
    join(operator.directory, "other.memory"),
    "--host",
    `web2=${b}`,
    "--host",
    `web1=${a}`,
  ];
  const published = await nixosPull(["publish", "-m", relative(process.cwd(), other), ...args]);
  expect(published.exitCode, published.stderr).toBe(0);
  expect(published.stdout.trimEnd().split("\n").at(-1)).toBe(
    join(other, "channels/stable/manifest.json"),
  );
  const [names, again] = await Promise.all(
    [operator.mirror, other].map((mirror) => readdir(join(mirror, "archives"))),
  );
  expect(again).toEqual(names);
  const sizes = await Promise.all(
    (names ?? []).map((name) => stat(join(operator.mirror, "archives", name))),
  );

  const sha256 = expect.stringMatching(/^[0-9a-f]{64}$/);
  const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/);
  const host = (hostname: string, toplevel: string): object => ({
    hostname,
    toplevel,
    ...{ mode: "switch", specialisation: null, platform: null },
    closureSize: expect.any(Number),
    paths: 5,
    archive: { sha256, size: expect.any(Number), index: { sha256, size: expect.any(Number) } },
    reused: false,
    download: null,
  });
  expect(json).toEqual({
    channel: "stable",
    epoch: 0,
    sequence: 1,
    draft: false,
    unchanged: false,
    difference: expect.objectContaining({ from: null, unchanged: 0 }),
    digest: sha256,
    createdAt: time,
    expiresAt: time,
    manifest: join(operator.mirror, "channels/stable/manifest.json"),
    signedBy: ["test-1"],
    hosts: { web1: host("web1", a), web2: host("web2", b) },
    dropped: [],
    failed: [],
    newBytes: sizes.reduce((sum, { size }) => sum + size, 0),
  });
});

test("two keys sign, and a host that demands two accepts no less", async () => {
  const operator = await createOperator();
  const second = generateKey("second-1");
  const keyFile = join(operator.directory, "second.secret");
  await writeFile(keyFile, second.secret, { mode: 0o600 });
  const host = await createHost({
    mirrors: [`file://${operator.mirror}`],
    publicKeys: [operator.publicKey, second.public],
    threshold: 2,
  });
  const [first, next] = (await buildGenerations("1", "2")) as [string, string];
  const { stdout } = await operator.publish({ web1: first }, "-k", keyFile, "--json");
  expect(JSON.parse(stdout).signedBy).toEqual(["test-1", "second-1"]);
  expect(await host.json("apply")).toMatchObject({ exitCode: 0, value: { updated: true } });

  await operator.publish({ web1: next });
  expect(await host.json("apply")).toMatchObject({
    exitCode: 4,
    value: { updated: false, error: { code: "SIGNATURE_THRESHOLD" } },
  });
  expect(await host.profileToplevel()).toBe(first);
});

test.each(["zstd", "xz", "none"])(
  "an archive is a binary cache for tar and nix copy (%s)",
  async (compression) => {
    const operator = await createOperator();
    const toplevel = await buildSystem({ payloadBytes: 30_000 });
    const { hosts } = releaseOf(
      await operator.publish({ web1: toplevel }, "--compression", compression, "--json"),
    );
    const cache = join(operator.directory, "cache");
    await mkdir(cache);
    execFileSync("tar", [
      "-xf",
      join(operator.mirror, "archives", `${hosts["web1"]!.archive.sha256}.tar`),
      "-C",
      cache,
    ]);
    const copy = async (publicKey: string): Promise<{ root: string }> => {
      const root = await temporaryDirectory();
      nix([
        ...["--option", "trusted-public-keys", publicKey, "--option", "require-sigs", "true"],
        ...["copy", "--from", `file://${cache}`, "--to", `local?root=${root}`, toplevel],
      ]);
      return { root };
    };
    const { root } = await copy(operator.publicKey);
    expect(await readFile(join(root, toplevel, "nixos-version"), "utf8")).toBe("1\n");
    const store = ["--store", `local?root=${root}`];
    expect(
      nix(["path-info", "--recursive", ...store, toplevel])
        .trim()
        .split("\n"),
    ).toHaveLength(6);
    nix(["store", "verify", ...store, "--no-trust", "--recursive", toplevel]);
    await expect(copy(generateKey("test-1").public)).rejects.toThrow(/signature/);
  },
);

test("an archive that is damaged on the mirror is packed again", async () => {
  const operator = await createOperator();
  const web1 = await buildSystem();
  const { hosts } = releaseOf(await operator.publish({ web1 }, "--json"));
  const archive = join(operator.mirror, "archives", `${hosts["web1"]!.archive.sha256}.tar`);
  const bytes = await readFile(archive);
  bytes[bytes.length - 1_500]! ^= 1;
  await writeFile(archive, bytes);
  await operator.publish({ web1 });
  const verified = await nixosPull(["verify", operator.mirror, "-p", operator.publicKey]);
  expect(verified.exitCode, verified.stdout).toBe(0);
});

test("--keep-hosts does not lose the hosts of a release that these keys cannot read", async () => {
  const operator = await createOperator();
  const stranger = join(operator.directory, "stranger.secret");
  await writeFile(stranger, generateKey("stranger-1").secret, { mode: 0o600 });
  const web1 = await buildSystem();
  await operator.publish({ web1 });
  const { mirror } = operator;
  const args = ["--host", `web2=${web1}`, "--sequence", "2", "--keep-hosts"];
  const output = await nixosPull(["publish", "-m", mirror, "-k", stranger, ...args]);
  const kept = "web1" in (await manifestOf(mirror)).hosts;
  expect(kept || output.stderr.includes("--keep-hosts"), output.stderr).toBe(true);
});

test("two publishes into one mirror: the second is told to wait", async () => {
  const operator = await createOperator();
  const host = ["--host", `web1=${await buildSystem()}`];
  const first = startCommand(["publish", "-m", operator.mirror, "-k", operator.keyFile, ...host]);
  await first.sees("building web1");
  first.child.kill("SIGSTOP");
  expect(await attempt(operator, ...host)).toMatchObject({
    exitCode: 10,
    stdout: "",
    stderr: expect.stringContaining("PUBLISH_LOCKED"),
  });
  first.child.kill("SIGCONT");
  expect(await first.ended).toMatchObject({ exitCode: 0 });
});

test("a publish that is killed at any moment leaves the old release whole", async () => {
  const operator = await createOperator();
  const build = (generation: string): Promise<string[]> =>
    Promise.all(
      ["web1", "web2"].map((name) => buildSystem({ name, generation, payloadBytes: 8_000_000 })),
    );
  const [one, two] = await Promise.all([build("1"), build("2")]);
  const publish = ([web1, web2]: string[]): string[] => [
    ...["publish", "-m", operator.mirror, "-k", operator.keyFile],
    ...["--host", `web1=${web1}`, "--host", `web2=${web2}`],
  ];
  const verify = async (): Promise<string> => {
    const output = await nixosPull(["verify", operator.mirror, "-p", operator.publicKey]);
    expect(output.exitCode, `SEED=${seed}: ${output.stdout}${output.stderr}`).toBe(0);
    return (await manifestOf(operator.mirror)).hosts["web1"]!.toplevel;
  };
  const seed = Number(process.env["SEED"] ?? Date.now() % 100_000);
  console.log(`SEED=${seed} repeats the moments of the kills`);
  let random = seed;
  const next = (): number => (random = (random * 48_271 + 11) % 2_147_483_647) / 2_147_483_647;

  const began = performance.now();
  expect(await nixosPull(publish(one))).toMatchObject({ exitCode: 0 });
  const took = performance.now() - began;
  let inForce = one[0];
  for (let kill = 0; kill < 6; kill += 1) {
    const running = startCommand(publish(inForce === one[0] ? two : one));
    await sleep(took * (0.25 + 0.75 * next()));
    running.child.kill("SIGKILL");
    await running.ended;
    inForce = await verify();
  }
  const last = await nixosPull(publish(inForce === one[0] ? two : one));
  expect(last.exitCode, `SEED=${seed}: ${last.stderr}`).toBe(0);
  expect(await verify()).not.toBe(inForce);
  expect(await readdir(join(operator.mirror, ".publish"))).toEqual(["lock", "releases"]);
  expect(await readdir(join(operator.mirror, "channels/stable"))).toEqual(["manifest.json"]);
}, 600_000);

test("what only its owner can read is told, since a web server would refuse it", async () => {
  const operator = await createOperator();
  const system = await buildSystem();
  const bundle = fileURLToPath(new URL("../../dist/nixos-pull.cjs", import.meta.url));
  const hidden = spawnSync(
    "sh",
    [
      ...["-c", 'umask 077 && exec "$@"', "sh", process.execPath, bundle, "publish"],
      ...["--mirror", operator.mirror, "--key", operator.keyFile, "--host", `web1=${system}`],
    ],
    { encoding: "utf8", env: testEnvironment() },
  );
  expect(hidden.status, hidden.stderr).toBe(0);
  expect(hidden.stderr).toMatch(/channels can be read by its owner only.*chmod -R go\+rX/);
  execFileSync("chmod", ["-R", "go+rX", operator.mirror]);
  const readable = await operator.publish({ web1: await buildSystem({ generation: "2" }) });
  expect(readable.stderr).not.toContain("owner only");
});

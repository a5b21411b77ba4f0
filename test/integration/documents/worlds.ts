import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { startNginx } from "../../../scripts/bench/support/nginx.mjs";
import { EXIT } from "../../../agent/core/errors.ts";
import { generateKey } from "../../../agent/core/formats/signing-key.ts";
import { runProcess } from "../../../agent/effects/process/subprocess.ts";
import { buildSystem, SYSTEM_FILE } from "../../support/closure.ts";
import { fencedBlocks } from "../../support/command-blocks.ts";
import { nixosPull, testEnvironment } from "../../support/nixos-pull.ts";
import { createHost, type SandboxHost } from "../../support/sandbox.ts";
import { buildScriptedSystem, hookSwitches } from "../../support/scripted-system.ts";
import { nixosPullSources, standInNixpkgs, tarballOf } from "../../support/stand-in-nixpkgs.ts";
import { temporaryDirectory } from "../../support/temporary.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;
const BUNDLE = join(ROOT, "dist/nixos-pull.cjs");
const COMMAND_TIMEOUT_MS = 240_000;

/** What a command of a document printed, in the document's own words. */
export interface Printed {
  readonly exitCode: number | null;
  readonly text: string;
}

/** The machine on which a document's commands run, from the first to the last. */
export class World {
  /** What stands here for the machine's own root: `/srv`, `/mnt` and `/etc` are below it. */
  readonly root: string;
  /** Texts of the document, and what stands for each on this machine. */
  readonly #words: (readonly [string, string])[] = [];
  #directory: string;

  constructor(root: string) {
    this.root = root;
    this.#directory = join(root, "home");
    for (const path of ["/srv/", "/mnt/", "/run/", "/etc/"]) this.means(path, join(root, path));
  }

  /** From now on `text` in a command means `here`; in what it prints, `here` is shown as `text`. */
  means(text: string, here: string): void {
    this.#words.unshift([text, here]);
  }

  /** A path of the document on this machine; a relative one is below the current directory. */
  path(path: string): string {
    return path.startsWith("/") ? join(this.root, path) : join(this.#directory, path);
  }

  /** Writes a file, and its directory if there is none. */
  async write(path: string, text: string, mode = 0o644): Promise<void> {
    await mkdir(join(this.path(path), ".."), { recursive: true });
    await writeFile(this.path(path), text, { mode });
  }

  async read(path: string): Promise<string> {
    return (await readFile(this.path(path), "utf8")).trim();
  }

  /** Adds a program to the machine's PATH, as a shell script. */
  async program(name: string, script: string): Promise<void> {
    await this.write(join("/bin", name), `#!/bin/sh\n${script}\n`, 0o755);
  }

  /** `nixos-pull` as on a host whose configuration is `host`'s. */
  async isHost(host: SandboxHost): Promise<void> {
    const commands =
      "apply|check|config|confirm|doctor|history|hold|repair|report|rollback|status|unhold";
    await this.program(
      "nixos-pull",
      `case "$1" in ${commands}) set -- "$@" --config '${host.configFile}' ;; esac\n` +
        `exec '${process.execPath}' '${BUNDLE}' "$@"`,
    );
    this.means("", host.root);
  }

  /** Serves a directory by nginx; gives its address. */
  async serve(path: string): Promise<string> {
    await mkdir(this.path(path), { recursive: true });
    const server = await startNginx(this.path(path), join(await temporaryDirectory(), "nginx"));
    onTestFinished(() => {
      server.stop();
    });
    return server.url;
  }

  /** Runs one command of the document, where the one before left off. */
  async run(command: string): Promise<Printed> {
    const left = join(this.root, "directory");
    const { PATH, ...environment } = testEnvironment();
    const text = this.#words.reduce(
      (said, [word, here]) => (word === "" ? said : replaceWord(said, word, here)),
      command,
    );
    const script = `exec 2>&1\ncd '${this.#directory}' || exit 99\n${text}\nstatus=$?\npwd > '${left}'\nexit $status`;
    const result = await runProcess("bash", ["-c", script], {
      env: {
        ...environment,
        ...{ HOME: join(this.root, "home"), TZ: "UTC", NO_COLOR: "1" },
        PATH: `${join(this.root, "bin")}:${PATH ?? ""}`,
        RCLONE_CONFIG: join(this.root, "rclone.conf"),
      },
      timeoutMs: COMMAND_TIMEOUT_MS,
    });
    this.#directory = (await readFile(left, "utf8").catch(() => this.#directory)).trim();
    const shown = [...this.#words, ["", this.root] as const].reduce(
      (said, [word, here]) => said.replaceAll(here, word),
      result.stdout,
    );
    return { exitCode: result.exitCode, text: shown };
  }
}

/** Replaces a word where it is no part of a longer path or word. */
function replaceWord(text: string, word: string, here: string): string {
  const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const starts = /^\w/.test(word)
    ? "(?<![\\w./-])"
    : word.startsWith("/")
      ? "(?<![\\w.:/-]|\\w/)"
      : "";
  const ends = /\w$/.test(word) ? "(?![\\w-])" : "";
  return text.replace(new RegExp(`${starts}${escaped}${ends}`, "g"), () => here);
}

/** A machine with `nixos-pull`, a mirror that nginx serves, and a system to publish for web1. */
async function operatorWorld(): Promise<World> {
  const world = new World(await temporaryDirectory());
  for (const path of ["home", "srv/mirror", "mnt/stick", "run", "etc"]) {
    await mkdir(join(world.root, path), { recursive: true });
  }
  await world.program("nixos-pull", `exec '${process.execPath}' '${BUNDLE}' "$@"`);
  await cp(SYSTEM_FILE, world.path("system.nix"));
  await world.write("nixos.nix", `import ./system.nix { name = "web1"; }`);
  return world;
}

/** Runs `nixos-pull` to prepare a world; an error is the test's. */
async function prepare(...args: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await nixosPull(args);
  if (exitCode !== 0) throw new Error(`nixos-pull ${args.join(" ")}: ${stderr}`);
  return stdout;
}

/** Makes a key pair in the current directory, as `keygen NAME` does; gives the public key. */
async function makeKey(world: World, name: string): Promise<string> {
  const pair = generateKey(name);
  await world.write(`${name}.secret`, `${pair.secret}\n`, 0o600);
  await world.write(`${name}.public`, `${pair.public}\n`);
  return pair.public;
}

/** Publishes systems to /srv/mirror with the key fleet-1. */
async function publish(
  world: World,
  systems: Readonly<Record<string, string>>,
  ...args: string[]
): Promise<void> {
  const hosts = Object.entries(systems).flatMap(([name, path]) => ["--host", `${name}=${path}`]);
  const place = ["--mirror", world.path("/srv/mirror"), "--key", world.path("fleet-1.secret")];
  await prepare("publish", ...place, ...hosts, ...args);
}

/** An operator's world with the key fleet-1 and a host that runs release 1 of it. */
async function hostWorld(): Promise<{ world: World; host: SandboxHost }> {
  const world = await operatorWorld();
  const publicKey = await makeKey(world, "fleet-1");
  await publish(world, { web1: await buildSystem({ name: "web1" }) });
  const mirrors = [await world.serve("/srv/mirror")];
  const host = await createHost({ mirrors, publicKeys: [publicKey] });
  const applied = await host.run("apply");
  if (applied.exitCode !== 0) throw new Error(applied.stderr);
  await world.isHost(host);
  return { world, host };
}

/** A document's world, and what happens in it before some of the document's commands. */
export interface Scene {
  readonly world: World;
  readonly before?: Readonly<Record<string, () => Promise<void>>>;
  /** Exit codes of commands that say by it what they found. All others end with 0. */
  readonly exits?: Readonly<Record<string, readonly number[]>>;
}

async function getStarted(): Promise<Scene> {
  const world = await operatorWorld();
  const stands = await temporaryDirectory();
  world.means(
    "https://github.com/NixOS/nixpkgs/archive/COMMIT.tar.gz",
    tarballOf(await standInNixpkgs(stands)),
  );
  world.means(
    "https://git.example.org/nixos-pull/archive/COMMIT.tar.gz",
    tarballOf(await nixosPullSources(stands)),
  );
  const ports = (list: string): string =>
    `{ lib, ... }: { nixpkgs.hostPlatform = "x86_64-linux"; networking.firewall.allowedTCPPorts = lib.mkForce [ ${list} ]; }`;
  return {
    world,
    before: {
      "nixos-pull option networking.firewall.allowedTCPPorts": async () => {
        await world.write("hosts/db1.nix", ports("5432"));
        await world.write("hosts/web1.nix", ports("80 443"));
      },
      "nixos-pull check --config sandbox.json": async () => {
        const text = await readFile(join(ROOT, "agent/docs/configuration.md"), "utf8");
        const sandbox = fencedBlocks(text).find((block) => block.text.includes("/srv/sandbox"));
        const publicKey = await world.read("../fleet-1.public");
        const here = (sandbox?.text ?? "")
          .replaceAll("/srv/", world.path("/srv/"))
          .replace(/"fleet-1:[^"]*"/, JSON.stringify(publicKey));
        await world.write("sandbox.json", here);
        await mkdir(world.path("/srv/sandbox/nix"), { recursive: true });
      },
    },
  };
}

async function publishing(): Promise<Scene> {
  const world = await operatorWorld();
  await makeKey(world, "fleet-1");
  await makeKey(world, "keys/fleet-1");
  await publish(world, { web1: await buildSystem({ name: "web1" }) });
  await writePureSystem(world);
  await world.write(
    "flake.nix",
    `{
      outputs = { self }: {
        nixosConfigurations = builtins.mapAttrs (name: _: {
          config.system.build.toplevel = (import ./system.nix { inherit name; }).system;
        }) { web1 = { }; db1 = { }; laptop = { }; test-1 = { }; };
      };
    }`,
  );
  await mkdir(world.path("/srv/remote"));
  await mkdir(world.path("/srv/bucket"));
  await cp(world.path("/srv/mirror"), world.path("mirror"), { recursive: true });
  world.means("web@releases.example.org:/srv/mirror/", `${world.path("/srv/remote")}/`);
  world.means("mirror:bucket/", `${world.path("/srv/bucket")}/`);
  return { world };
}

async function secrets(): Promise<Scene> {
  const world = await operatorWorld();
  await makeKey(world, "fleet-1");
  world.means(
    "publish …",
    `publish --mirror ${world.path("/srv/mirror")} --key fleet-1.secret --host web1=./nixos.nix#system`,
  );
  // The host's identity, and where its activation puts the secret.
  world.means("/var/lib/host-key/", `${world.path("/var/lib/host-key")}/`);
  return {
    world,
    before: {
      "age --encrypt -R host.pub -o db-password.age db-password": async () => {
        await mkdir(world.path("/var/lib/host-key"), { recursive: true });
        await mkdir(world.path("/run/keys"));
        await world.run("age-keygen -o /var/lib/host-key/identity");
        await world.run("age-keygen -y /var/lib/host-key/identity > host.pub");
        await world.write("db-password", "correct horse\n");
      },
    },
  };
}

/** The tests' system, for flakes: a pure evaluation does not say what machine this is. */
async function writePureSystem(world: World): Promise<void> {
  const system = await readFile(SYSTEM_FILE, "utf8");
  const machine = `"${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux"`;
  await world.write("system.nix", system.replace("builtins.currentSystem", machine));
}

/** Two of three people sign; a builder has a key of its own. */
async function keys(): Promise<Scene> {
  const world = await operatorWorld();
  for (const name of ["builder-1", "alice-1", "bob-1"]) await makeKey(world, name);
  await writePureSystem(world);
  const flake = (generation: string, bytes: number): Promise<void> =>
    world.write(
      "flake.nix",
      `{ outputs = { self }: { nixosConfigurations.web1.config.system.build.toplevel =
         (import ./system.nix { name = "web1"; generation = "${generation}"; payloadBytes = ${String(bytes)}; }).system; }; }`,
    );
  await flake("1", 1000);
  const seed = Buffer.from((await world.read("bob-1.secret")).split(":")[1] ?? "", "base64");
  const der = Buffer.concat([
    Buffer.from("302e020100300506032b657004220420", "hex"),
    seed.subarray(0, 32),
  ]);
  await world.write(
    "token-sign",
    `#!${process.execPath}
const { createPrivateKey, sign } = require("node:crypto");
const key = createPrivateKey({ key: Buffer.from("${der.toString("hex")}", "hex"), format: "der", type: "pkcs8" });
process.stdout.write(sign(null, require("node:fs").readFileSync(0), key).toString("base64"));\n`,
    0o755,
  );
  world.means("https://releases.example.org", await world.serve("/srv/mirror"));
  let signed = 0;
  return {
    world,
    before: {
      "nixos-pull sign release.json --key alice-1.secret --against https://releases.example.org":
        async () => {
          signed += 1;
          if (signed === 1) return;
          await flake("2", 2000);
          const drafted = await world.run(
            "nixos-pull publish --mirror /srv/mirror --store-key builder-1.secret --host web1=.#web1 --unsigned release.json " +
              '--public-key "$(cat alice-1.public)"',
          );
          if (drafted.exitCode !== 0) throw new Error(drafted.text);
        },
    },
  };
}

/** A mirror with two hosts' releases and reports; the hosts follow a stick. */
async function airGap(): Promise<Scene> {
  const world = await operatorWorld();
  const publicKey = await makeKey(world, "fleet-1");
  const systems = async (generation: string): Promise<Record<string, string>> => ({
    web1: await buildSystem({ name: "web1", generation }),
    db1: await buildSystem({ name: "db1", generation }),
  });
  await publish(world, await systems("1"));
  await mkdir(world.path("/srv/mirror/reports"));
  const home = await world.serve("/srv/mirror");
  const known: string[] = [];
  const hosts: SandboxHost[] = [];
  for (const name of ["web1", "db1"]) {
    const host = await createHost(
      {
        mirrors: [`file://${world.path("/mnt/stick")}`, home],
        publicKeys: [publicKey],
        sticks: { reports: true },
      },
      name,
    );
    await host.run("apply");
    await host.run("report", "--out", world.path(`/srv/mirror/reports/${name}.json`));
    known.push(`${name} ${(await host.run("report", "--public-key")).stdout.trim()}`);
    hosts.push(host);
  }
  await world.write("hosts.keys", `${known.join("\n")}\n`);
  await publish(world, await systems("2"));
  world.means("SRC", home);
  world.means("DST", world.path("/srv/site"));
  world.means("KEY", publicKey);
  return {
    world,
    before: {
      "nixos-pull mirror /mnt/stick /srv/mirror --reports --keys hosts.keys": async () => {
        for (const host of hosts) {
          const applied = await host.run("apply");
          if (applied.exitCode !== 0) throw new Error(applied.stderr);
        }
      },
    },
  };
}

/** web1 runs what it should, db1's switch fails, web2 never reported. */
async function fleet(): Promise<Scene> {
  const world = await operatorWorld();
  const publicKey = await makeKey(world, "fleet-1");
  const web2 = await buildSystem({ name: "web2" });
  const systems = async (generation: string): Promise<Record<string, string>> => ({
    web1: await buildScriptedSystem(generation, { name: "web1" }),
    db1: await buildScriptedSystem(generation, { name: "db1" }),
    web2,
  });
  await mkdir(world.path("/srv/reports"));
  await publish(
    world,
    await systems("11"),
    "--allow-without-agent",
    "web1",
    "--allow-without-agent",
    "db1",
  );
  const known: string[] = [];
  const hosts: SandboxHost[] = [];
  for (const name of ["web1", "db1"]) {
    const mirrors = [`file://${world.path("/srv/mirror")}`];
    const host = await createHost({ mirrors, publicKeys: [publicKey] }, name);
    await host.run("apply");
    known.push(`${name} ${(await host.run("report", "--public-key")).stdout.trim()}`);
    hosts.push(host);
  }
  await world.write("hosts.keys", `${known.join("\n")}\n`);
  const [, db1] = hosts;
  if (db1) {
    const line = "postgres[41337]: FATAL: data directory was initialized by PostgreSQL version 15";
    await hookSwitches(db1, `if [ "$generation" = 12 ]; then echo "${line}" >&2; exit 4; fi`);
  }
  await publish(
    world,
    await systems("12"),
    "--allow-without-agent",
    "web1",
    "--allow-without-agent",
    "db1",
  );
  for (const [index, host] of hosts.entries()) {
    await host.run("apply");
    // A poll later, the system that failed is denied.
    await host.run("apply");
    const name = index === 0 ? "web1" : "db1";
    await host.run("report", "--out", world.path(`/srv/reports/${name}.json`));
  }
  return { world };
}

async function byHand(): Promise<Scene> {
  const { world } = await hostWorld();
  const toplevel = await buildSystem({ name: "web1", generation: "2" });
  await publish(world, { web1: toplevel });
  await prepare(
    ...["mirror", world.path("/srv/mirror"), world.path("/mnt/stick")],
    ...["--public-key", await world.read("fleet-1.public")],
  );
  world.means("TOPLEVEL", toplevel);
  // A host without the agent, with a store of its own.
  const store = `local?root=${await temporaryDirectory()}`;
  world.means("nix --extra", `NIX_REMOTE='${store}' nix --extra`);
  return { world };
}

/** What `doctor` ends with on a machine without the units: with or without systemd. */
const NO_NIXOS_HOST = [EXIT.untried, EXIT.unwell];

async function troubleshooting(): Promise<Scene> {
  const { world } = await hostWorld();
  return {
    world,
    exits: { "nixos-pull doctor": NO_NIXOS_HOST },
    before: {
      "nixos-pull apply": async () => {
        await publish(world, { web1: await buildSystem({ name: "web1", generation: "2" }) });
      },
    },
  };
}

/** This machine is no NixOS host, and doctor says so. */
async function doctor(): Promise<Scene> {
  const { world } = await hostWorld();
  await world.program("sudo", 'exec "$@"');
  return { world, exits: { "sudo nixos-pull doctor": NO_NIXOS_HOST } };
}

async function hostRules(): Promise<Scene> {
  return { world: (await hostWorld()).world };
}

/** What the examples of the manual pages do, one after the other. */
async function manualPages(): Promise<Scene> {
  const world = await operatorWorld();
  const stands = await temporaryDirectory();
  const [nixpkgs, sources] = [await standInNixpkgs(stands), await nixosPullSources(stands)];
  await world.write("db1.nix", `import ./system.nix { name = "db1"; }`);
  const mustRun = async (command: string): Promise<void> => {
    const { exitCode, text } = await world.run(command);
    if (exitCode !== 0) throw new Error(`${command}\n${text}`);
  };
  const publishWeb1 = (generation: string): Promise<void> => {
    const system = `(import ./system.nix { name = "web1"; generation = "${generation}"; })`;
    return world
      .write("next.nix", system)
      .then(() =>
        mustRun(
          "nixos-pull publish --mirror /srv/mirror --key fleet-1.secret --host web1=./next.nix#system",
        ),
      );
  };
  let host: SandboxHost | undefined;
  return {
    world,
    exits: { "nixos-pull doctor": NO_NIXOS_HOST },
    before: {
      "nixos-pull option networking.firewall.allowedTCPPorts --file fleet/nixos.nix": async () => {
        await mustRun(`cd fleet && ./pin nixpkgs ${tarballOf(nixpkgs)}; cd ..`);
        await mustRun(`cd fleet && ./pin nixos-pull ${tarballOf(sources)}; cd ..`);
      },
      "nixos-pull release abort --mirror /srv/mirror --key fleet-1.secret": () => publishWeb1("9"),
      "nixos-pull sign release.json --key fleet-1.secret --against /srv/mirror": () =>
        mustRun(
          "nixos-pull publish --mirror /srv/mirror --store-key fleet-1.secret " +
            '--host web1=./nixos.nix#system --unsigned release.json --public-key "$(cat fleet-1.public)"',
        ),
      "nixos-pull check": async () => {
        await publishWeb1("2");
        const publicKeys = [await world.read("fleet-1.public")];
        const mirrors = [`file://${world.path("/srv/mirror")}`];
        const activation = { confirm: "required" };
        host = await createHost({ mirrors, publicKeys, activation });
        await world.isHost(host);
      },
      "nixos-pull confirm": async () => {
        const agent = host?.start("run");
        await agent?.sees("nixos-pull confirm");
        agent?.child.kill("SIGTERM");
        await agent?.ended;
      },
      "nixos-pull report --out /srv/reports/web1.json": async () => {
        await mkdir(world.path("/srv/reports"));
      },
      "nixos-pull rollback": async () => {
        await publishWeb1("3");
        await mustRun("nixos-pull apply");
      },
    },
  };
}

/** An operator's machine, with nothing but what the document makes. */
async function operator(): Promise<Scene> {
  return { world: await operatorWorld() };
}

/** The scene in which each document's commands run. */
export const SCENES: Readonly<Record<string, () => Promise<Scene>>> = {
  "README.md": operator,
  "agent/docs/air-gap.md": airGap,
  "agent/docs/by-hand.md": byHand,
  "agent/docs/doctor.md": doctor,
  "agent/docs/errors.md": operator,
  "agent/docs/fleet.md": fleet,
  "agent/docs/get-started.md": getStarted,
  "agent/docs/host-rules.md": hostRules,
  "agent/docs/keys.md": keys,
  "agent/docs/publishing.md": publishing,
  "agent/docs/secrets.md": secrets,
  "agent/docs/troubleshooting.md": troubleshooting,
  "manual pages": manualPages,
};

import { mkdir, readFile, readdir, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  generateKey,
  parseSecretKey,
  type SecretKey,
} from "../../agent/core/formats/signing-key.ts";
import { nixosPull, startCommand, type CommandOutput, type RunningCommand } from "./nixos-pull.ts";
import { temporaryDirectory } from "./temporary.ts";

/** An operator with a key and a mirror directory. */
export interface Operator {
  readonly directory: string;
  readonly mirror: string;
  readonly keyFile: string;
  readonly publicKey: string;
  readonly secretKey: SecretKey;
  /** `nixos-pull publish` into the mirror; throws with its output where it fails. */
  publish(hosts: Readonly<Record<string, string>>, ...args: string[]): Promise<CommandOutput>;
}

export async function createOperator(keyName = "test-1"): Promise<Operator> {
  const directory = await temporaryDirectory();
  const pair = generateKey(keyName);
  const keyFile = join(directory, "key.secret");
  await writeFile(keyFile, pair.secret, { mode: 0o600 });
  const mirror = join(directory, "mirror");
  return {
    directory,
    mirror,
    keyFile,
    publicKey: pair.public,
    secretKey: parseSecretKey(pair.secret),
    async publish(hosts, ...args) {
      const named = Object.entries(hosts).flatMap(([name, source]) => [
        "--host",
        `${name}=${source}`,
      ]);
      const output = await nixosPull([
        ...["publish", "--mirror", mirror, "--key", keyFile],
        ...named,
        ...args,
      ]);
      if (output.exitCode !== 0) throw new Error(output.stderr);
      return output;
    },
  };
}

/** A simulated host: its own store, profile and state below one root. */
export interface SandboxHost {
  readonly root: string;
  readonly state: string;
  readonly staging: string;
  readonly profile: string;
  readonly configFile: string;
  /** Runs a host command of the bundle with this host's configuration. */
  run(command: string, ...args: string[]): Promise<CommandOutput>;
  start(command: string, ...args: string[]): RunningCommand;
  /** Parsed `--json` output of a host command, whatever its exit code. */
  json(command: string, ...args: string[]): Promise<{ exitCode: number | null; value: any }>;
  /** What the profile's current generation points at, or null. */
  profileToplevel(): Promise<string | null>;
  /** Lines `MODE TOPLEVEL` that switch-to-configuration left. */
  switchLog(): Promise<string[]>;
  /** Whether nothing is left in staging. */
  stagingIsClean(): Promise<boolean>;
}

export async function createHost(
  settings: Record<string, unknown> & { mirrors: string[]; publicKeys: string[] },
  hostname = "web1",
): Promise<SandboxHost> {
  const root = await temporaryDirectory();
  await mkdir(join(root, "nix"), { recursive: true });
  const state = join(root, "state");
  const staging = join(state, "staging");
  const profile = join(root, "nix/var/nix/profiles/system");
  const configFile = join(root, "config.json");
  const { paths, ...others } = settings as { paths?: Record<string, string> };
  const config = {
    hostname,
    store: `local?root=${root}`,
    log: { format: "text" },
    ...others,
    // One look: here no unit needs time to come up.
    health: { timeout: "1s", interval: "1s", ...(settings["health"] as object | undefined) },
    // The tests' own disk is nobody's to reserve.
    limits: { reserveBytes: 0, ...(settings["limits"] as object | undefined) },
    paths: {
      state,
      profile,
      gcRoots: join(root, "nix/var/nix/gcroots/nixos-pull"),
      currentSystem: join(root, "run/current-system"),
      bootedSystem: join(root, "run/booted-system"),
      boot: join(root, "boot"),
      ...paths,
    },
  };
  await writeFile(configFile, JSON.stringify(config, null, 2));
  const run = (command: string, ...args: string[]): Promise<CommandOutput> =>
    nixosPull([command, "--config", configFile, ...args]);
  return {
    root,
    state,
    staging,
    profile,
    configFile,
    run,
    start: (command, ...args) => startCommand([command, "--config", configFile, ...args]),
    async json(command, ...args) {
      const { exitCode, stdout, stderr } = await run(command, "--json", ...args);
      if (stdout === "") throw new Error(`${command} printed nothing: ${stderr}`);
      return { exitCode, value: JSON.parse(stdout) as unknown };
    },
    async profileToplevel() {
      try {
        return await readlink(join(root, "nix/var/nix/profiles", await readlink(profile)));
      } catch {
        return null;
      }
    },
    async switchLog() {
      const text = await readFile(join(root, "switch.log"), "utf8").catch(() => "");
      return text.split("\n").filter((line) => line !== "");
    },
    async stagingIsClean() {
      return (await readdir(staging).catch(() => [])).length === 0;
    },
  };
}

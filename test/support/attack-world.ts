import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chown,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readFile,
  readdir,
  readlink,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { sealEnvelope, type Envelope } from "../../agent/core/formats/envelope.ts";
import type { ErrorCode } from "../../agent/core/errors.ts";
import { encodeManifest, parseManifest, type Manifest } from "../../agent/core/formats/manifest.ts";
import {
  generateKey,
  parseSecretKey,
  type SecretKey,
} from "../../agent/core/formats/signing-key.ts";
import { buildSystem } from "./closure.ts";
import { testEnvironment, type CommandOutput } from "./nixos-pull.ts";
import { removeTree } from "./temporary.ts";

const BUNDLE = fileURLToPath(new URL("../../dist/nixos-pull.cjs", import.meta.url));

/** No case may take longer: every wait of the agent is bounded. */
const COMMAND_TIMEOUT_MS = 240_000;

/** A key pair with its files. */
export interface KeyFiles {
  readonly secret: SecretKey;
  readonly secretFile: string;
  readonly publicKey: string;
}

/** What a host command printed with `--json`. */
export interface Outcome extends CommandOutput {
  readonly value: {
    readonly updated?: boolean;
    readonly decision?: string | null;
    readonly error?: { readonly code: ErrorCode; readonly message: string } | null;
    readonly mirrors?: readonly { readonly code?: ErrorCode; readonly message?: string }[];
    readonly [key: string]: unknown;
  };
}

/** Waits until `look` no longer throws. */
export function comes(look: () => unknown): Promise<unknown> {
  return vi.waitFor(look, { timeout: 120_000, interval: 50 });
}

/** One row of the table: what a hostile party arranges, and how the host must refuse it. */
export interface Attack {
  readonly name: string;
  readonly code: ErrorCode;
  readonly arrange: () => unknown;
}

/**
 * The world of one file of the table, given to `use` before its first test. It is put
 * back before every test, and after every one the host must be untouched and its
 * staging clean, whatever the test itself looked at.
 */
export function inAttackWorld(use: (world: AttackWorld) => unknown): void {
  let world: AttackWorld;
  beforeAll(async () => {
    world = await AttackWorld.create();
    await use(world);
  });
  afterAll(() => world.destroy());
  beforeEach(() => world.restore());
  afterEach(() => world.expectUntouched());
}

/** Rows that are arranged on the mirror or the host and end with `apply` refusing. */
export function attacks(title: string, world: () => AttackWorld, table: readonly Attack[]): void {
  describe(title, () => {
    test.each(table)("$name: $code", async ({ code, arrange }) => {
      await arrange();
      await world().refuses(code);
    });
  });
}

/** What of the host's files `restore` puts back. */
const RESTORED = ["mirror", "state", "root/nix/var/nix/gcroots"];

/**
 * One operator, one mirror directory and one host that became release 1; release 2 is
 * on the mirror. Cases change the mirror or the host's surroundings, and `restore` puts
 * both back, so that a whole group of cases pays for one set-up.
 */
export class AttackWorld {
  readonly directory: string;
  readonly mirror: string;
  readonly root: string;
  readonly state: string;
  readonly key: KeyFiles;
  readonly first: string;
  readonly second: string;
  readonly #snapshot: string;
  #settings: Record<string, unknown> = {};
  #stagingMayStay = false;
  #bundle = BUNDLE;

  private constructor(directory: string, key: KeyFiles, systems: [string, string]) {
    this.directory = directory;
    this.mirror = join(directory, "mirror");
    this.root = join(directory, "root");
    this.state = join(directory, "state");
    this.#snapshot = join(directory, "snapshot");
    this.key = key;
    [this.first, this.second] = systems;
  }

  static async create(): Promise<AttackWorld> {
    const directory = await mkdtemp(join(tmpdir(), "nixos-pull-attack-"));
    const key = await createKey(directory, "fleet-1");
    const first = await buildSystem({ generation: "1", payloadBytes: 100_000 });
    const second = await buildSystem({ generation: "2", payloadBytes: 300_000 });
    const world = new AttackWorld(directory, key, [first, second]);
    await mkdir(join(world.root, "nix"), { recursive: true });
    await world.publish(["--host", `web1=${first}`]);
    const applied = await world.apply();
    expect(applied.value.updated, applied.stderr).toBe(true);
    // Without the last index, release 2's comes from its archive and not as a patch.
    await rm(join(world.state, "indexes"), { recursive: true });
    await world.publish(["--host", `web1=${second}`, "--host", `db1=${first}`]);
    for (const name of [...RESTORED, "fleet-1.memory"]) {
      await cp(join(directory, name), join(world.#snapshot, name), COPIED);
    }
    return world;
  }

  async destroy(): Promise<void> {
    await removeTree(this.directory);
  }

  /** The mirror with release 2, what signers and host remember of it, and plain settings. */
  async restore(): Promise<void> {
    this.#settings = {};
    this.#stagingMayStay = false;
    this.#bundle = BUNDLE;
    for (const name of RESTORED) {
      await rm(join(this.directory, name), { recursive: true, force: true });
      await cp(join(this.#snapshot, name), join(this.directory, name), COPIED);
    }
    for (const name of await readdir(this.directory)) {
      if (name.endsWith(".memory")) await rm(join(this.directory, name));
    }
    await cp(join(this.#snapshot, "fleet-1.memory"), join(this.directory, "fleet-1.memory"));
    // As after a boot: the record's copy would hide what a case does to the record.
    await rm(`${this.state}.run`, { recursive: true, force: true });
  }

  /** In this test the download is right to stay: it is broken off and can be resumed. */
  leavesDownload(): void {
    this.#stagingMayStay = true;
  }

  /** Commands are of this bundle until `restore`. */
  useBundle(file: string): void {
    this.#bundle = file;
  }

  /** Commands are another host's until `restore`: one in `root`, which never had a release. */
  async becomeFreshHost(root: string): Promise<void> {
    await mkdir(join(root, "nix"), { recursive: true });
    const state = join(root, "state");
    this.configure({ store: `local?root=${root}`, paths: pathsIn(root, state) });
  }

  newKey(name: string): Promise<KeyFiles> {
    return createKey(this.directory, name);
  }

  /** Settings of the host from now on, over the plain ones. */
  configure(settings: Record<string, unknown>): void {
    this.#settings = { ...this.#settings, ...settings };
  }

  /** Runs any command of the shipped bundle to its end. */
  command(
    args: readonly string[],
    env: Record<string, string> = {},
    during?: (log: () => string) => Promise<unknown>,
  ): Promise<CommandOutput> {
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [this.#bundle, ...args], {
        env: { ...testEnvironment(), ...env },
        stdio: ["ignore", "pipe", "pipe"],
        timeout: COMMAND_TIMEOUT_MS,
        killSignal: "SIGKILL",
      });
      const [stdout, stderr]: [string[], string[]] = [[], []];
      if (during) {
        void during(() => stderr.join(""))
          .catch(reject)
          .finally(() => child.kill("SIGTERM"));
      }
      child.stdout.setEncoding("utf8").on("data", (text: string) => stdout.push(text));
      child.stderr.setEncoding("utf8").on("data", (text: string) => stderr.push(text));
      child.once("close", (exitCode) => {
        resolve({ exitCode, stdout: stdout.join(""), stderr: stderr.join("") });
      });
    });
  }

  /** `publish` with the fleet's key; throws with its output where it fails. */
  async publish(args: readonly string[], keys: readonly string[] = [this.key.secretFile]) {
    const signing = keys.flatMap((file) => ["--key", file]);
    const output = await this.command(["publish", "--mirror", this.mirror, ...signing, ...args]);
    if (output.exitCode !== 0) throw new Error(output.stderr);
    return output;
  }

  /** Runs a host command. */
  async host(args: readonly string[], env: Record<string, string> = {}): Promise<CommandOutput> {
    const [command = "", ...rest] = args;
    return this.command([command, "--config", await this.#writeConfiguration(), ...rest], env);
  }

  /**
   * Runs the service until `during`, which may look at what it logged, is done, and then
   * stops it. Throws what `during` throws.
   */
  async serve(during: (log: () => string) => Promise<unknown>): Promise<CommandOutput> {
    const file = await this.#writeConfiguration();
    return this.command(["run", "--config", file], {}, during);
  }

  async #writeConfiguration(): Promise<string> {
    const file = join(this.directory, "config.json");
    const { limits, paths, ...others } = this.#settings;
    const config = {
      hostname: "web1",
      mirrors: [`file://${this.mirror}`],
      publicKeys: [this.key.publicKey],
      store: `local?root=${this.root}`,
      log: { format: "json" },
      limits: { reserveBytes: 0, stallTimeout: "2s", connectTimeout: "2s", ...(limits as object) },
      paths: { ...pathsIn(this.root, this.state), ...(paths as object) },
      ...others,
    };
    await writeFile(file, JSON.stringify(config));
    return file;
  }

  /** `apply --json`, or another host command that prints JSON. */
  async apply(
    args: readonly string[] = ["apply"],
    env: Record<string, string> = {},
  ): Promise<Outcome> {
    const [command = "apply", ...rest] = args;
    const output = await this.host([command, "--json", ...rest], env);
    const value = (output.stdout === "" ? {} : JSON.parse(output.stdout)) as Outcome["value"];
    return { ...output, value };
  }

  /**
   * Applies and expects the attack to fail: the reason code, the system as it was, and
   * nothing left in staging.
   */
  async refuses(
    code: ErrorCode,
    args: readonly string[] = ["apply"],
    env: Record<string, string> = {},
  ): Promise<Outcome> {
    const outcome = await this.apply(args, env);
    const found = outcome.value.error?.code ?? /nixos-pull: ([A-Z_]+):/.exec(outcome.stderr)?.[1];
    expect(found, outcome.stderr + outcome.stdout).toBe(code);
    expect(outcome.exitCode).not.toBe(0);
    await this.expectUntouched();
    return outcome;
  }

  /** The host is release 1, was switched once, and has no part of another in store or staging. */
  async expectUntouched(): Promise<void> {
    const profile = join(this.root, "nix/var/nix/profiles/system");
    const generation = await readlink(profile);
    expect(await readlink(join(profile, "..", generation))).toBe(this.first);
    expect(await readlink(join(this.root, "run/current-system"))).toBe(this.first);
    expect(await readFile(join(this.root, "switch.log"), "utf8")).toBe(
      `test ${this.first}\nboot ${this.first}\n`,
    );
    expect(await this.exists(join(this.root, this.second))).toBe(false);
    if (this.#stagingMayStay) return;
    expect(await readdir(join(this.state, "staging")).catch(() => [])).toEqual([]);
  }

  /** Where the host keeps what it accepted, beside its state and history. */
  get trustElsewhere(): string {
    return join(this.root, "nix/var/nix/gcroots/nixos-pull.trust.json");
  }

  get manifestFile(): string {
    return join(this.mirror, "channels/stable/manifest.json");
  }

  async envelope(): Promise<Envelope> {
    return JSON.parse(await readFile(this.manifestFile, "utf8")) as Envelope;
  }

  async manifest(): Promise<Manifest> {
    return parseManifest(Buffer.from((await this.envelope()).payload, "base64"));
  }

  /** What a thief with the mirror, but without the key, can do: change the envelope. */
  async forge(change: (envelope: Envelope) => unknown): Promise<void> {
    const envelope = await this.envelope();
    const changed: unknown = (await change(envelope)) ?? envelope;
    const text = typeof changed === "string" ? changed : JSON.stringify(changed);
    await writeFile(this.manifestFile, text);
  }

  /** A release signed with `keys`, whatever it says: the key holder's mistakes, and thieves. */
  async resign(
    change: (manifest: Manifest) => unknown,
    keys: readonly KeyFiles[] = [this.key],
  ): Promise<void> {
    const manifest = await this.manifest();
    const changed = (change(manifest) ?? manifest) as Manifest;
    const payload = typeof changed === "string" ? Buffer.from(changed) : encodeManifest(changed);
    const secrets = keys.map(({ secret }) => secret);
    await writeFile(this.manifestFile, sealEnvelope(payload, secrets));
  }

  /** The archive that release 2 names for the host. */
  async archive(): Promise<{ file: string; sha256: string; size: number; indexSize: number }> {
    const entry = (await this.manifest()).hosts["web1"];
    if (!entry) throw new Error("the release does not name web1");
    const { sha256, size, index } = entry.archive;
    return {
      file: join(this.mirror, "archives", `${sha256}.tar`),
      sha256,
      size,
      indexSize: index.size,
    };
  }

  /** Overwrites bytes of the archive in place. */
  async patchArchive(offset: number, bytes: Uint8Array): Promise<void> {
    const file = await open((await this.archive()).file, "r+");
    try {
      await file.write(bytes, 0, bytes.length, offset);
    } finally {
      await file.close();
    }
  }

  /** Gives a file to another user; false where this test may not. */
  async chown(path: string, user: number): Promise<boolean> {
    if (process.geteuid?.() !== 0) return false;
    await chown(path, user, user);
    return true;
  }

  /** A PATH on which everything is found but `program`. */
  async pathWithout(program: string): Promise<string> {
    const bin = join(this.directory, `path-without-${program}`);
    await mkdir(bin, { recursive: true });
    const directories = (process.env["PATH"] ?? "").split(":");
    for (const name of ["nix", "nix-store", "nix-env", "flock", "sync"]) {
      if (name === program) continue;
      for (const directory of directories) {
        if (!(await this.exists(join(directory, name)))) continue;
        await symlink(join(directory, name), join(bin, name)).catch(() => undefined);
        break;
      }
    }
    return bin;
  }

  /** Whether something exists, as itself: links are not followed. */
  exists(path: string): Promise<boolean> {
    return lstat(path).then(
      () => true,
      () => false,
    );
  }
}

const COPIED = { recursive: true, verbatimSymlinks: true } as const;

function pathsIn(root: string, state: string): Record<string, string> {
  return {
    state,
    profile: join(root, "nix/var/nix/profiles/system"),
    gcRoots: join(root, "nix/var/nix/gcroots/nixos-pull"),
    currentSystem: join(root, "run/current-system"),
    bootedSystem: join(root, "run/booted-system"),
  };
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

async function createKey(directory: string, name: string): Promise<KeyFiles> {
  const pair = generateKey(name);
  const secretFile = join(directory, `${name}.secret`);
  await writeFile(secretFile, pair.secret, { mode: 0o600 });
  return { secret: parseSecretKey(pair.secret), secretFile, publicKey: pair.public };
}

import { readFileSync } from "node:fs";
import { mkdir, readFile, readdir, readlink, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import { runProcess, type ProcessResult } from "../../agent/effects/process/subprocess.ts";
import { testEnvironment } from "../support/nixos-pull.ts";
import { Container } from "./container.ts";
import { giveUpPlace, takePlace } from "./lifetime.ts";
import { createPrivateNetwork } from "./network.ts";

const BUILD_ROOT = fileURLToPath(new URL("build-root", import.meta.url));
const PREPARE_ROOT = fileURLToPath(new URL("prepare-root", import.meta.url));

const BOOT_TIMEOUT_MS = 5 * 60_000;
const EXEC_TIMEOUT_MS = 5 * 60_000;
const POLL_MS = 50;

export interface HostOptions {
  readonly name?: string;
  /**
   * `shared`: this machine's network, mirrors on 127.0.0.1 are reachable. `private`: one of
   * its own, in which `reach` gives the address of a mirror and `cutNetwork` cuts it off.
   */
  readonly network?: "shared" | "private";
  /**
   * `plain`: the boot loader starts what it was told last. `grub`: it starts an entry of GRUB's
   * menu, one of them once if it is asked to.
   */
  readonly loader?: "plain" | "grub";
  /** `file`: the caller disposes of it, in `afterAll`. */
  readonly until?: "test" | "file";
}

/** What systemd says of a unit. */
export interface UnitState {
  readonly loadState: string;
  readonly activeState: string;
  readonly subState: string;
  readonly result: string;
  readonly mainPid: number;
  /** Changes whenever the unit is started; empty where it never was. */
  readonly invocationId: string;
  readonly fragmentPath: string;
}

export interface ProfileState {
  readonly generation: number;
  readonly toplevel: string;
}

/** A host with real systemd and Nix whose systems are those of toplevel.nix. */
export interface SystemdHost {
  readonly name: string;
  /** Its root file system, seen from this machine; /run and /tmp are not in it. */
  readonly root: string;

  /**
   * Imports the closure into the host's own store, makes it the profile and the boot
   * default: the system that is there before any test begins. The host is off.
   */
  install(toplevel: string): Promise<void>;
  /** Imports a closure into the host's store and nothing more. */
  importClosure(toplevel: string): Promise<void>;

  /** Starts it and waits for multi-user.target; rejects where it does not get there. */
  boot(): Promise<void>;
  /** Starts it and waits for nothing. */
  powerOn(): void;
  /** Orderly, from inside. */
  powerOff(): Promise<void>;
  /** kill -9 of the whole host; what was written is on its disk, synced or not. */
  powerCut(): Promise<void>;
  /** Orderly, from inside, and waits for multi-user.target. */
  restart(): Promise<void>;
  /** Waits for a boot with another id than `previous` to reach multi-user.target. */
  waitForBoot(previous: string | null): Promise<void>;

  readonly isUp: boolean;
  /** Whether multi-user.target is reached. */
  isBooted(): Promise<boolean>;
  /** The kernel's boot id, other after each start; null while off. */
  bootId(): string | null;

  /** Runs a program inside and gives its result, whatever the exit code. */
  exec(command: string, ...args: string[]): Promise<ProcessResult>;
  /** Runs a program inside; gives its output, trimmed; rejects where it fails. */
  succeed(command: string, ...args: string[]): Promise<string>;
  /** Runs the switch-to-configuration of a toplevel inside. */
  switchTo(toplevel: string, action: string): Promise<ProcessResult>;

  /** Polls until `condition` gives true; says `description` and the last log lines if not. */
  waitFor(
    condition: () => boolean | Promise<boolean>,
    description: string,
    timeoutMs?: number,
  ): Promise<void>;

  unit(name: string): Promise<UnitState>;
  failedUnits(): Promise<string[]>;
  /** The journal of all boots, of one unit where named; also while the host is off. */
  logs(unit?: string): Promise<string>;
  /** What was printed to the console by all boots. */
  console(): string;

  /** Null while the host is off. */
  currentSystem(): Promise<string | null>;
  bootedSystem(): Promise<string | null>;
  /** What the host boots next. */
  bootDefault(): Promise<string | null>;
  profile(): Promise<ProfileState | null>;
  generations(): Promise<ProfileState[]>;
  /** Names and targets of the agent's garbage collector roots. */
  gcRoots(): Promise<Record<string, string>>;
  /** The agent's state directory: names below it and contents, JSON parsed. */
  state(): Promise<Record<string, unknown>>;
  /** A file as a program inside sees it, or null. */
  readFile(path: string): Promise<string | null>;

  /** Address at which the host reaches a server of this machine. */
  reach(url: string): Promise<string>;
  /** Only with a private network. */
  cutNetwork(): Promise<void>;
  restoreNetwork(): Promise<void>;

  dispose(): Promise<void>;
}

/** Makes a host that is off and empty: an overlay on the cached root, there in an instant. */
export async function createSystemdHost({
  name = "web1",
  network = "shared",
  loader = "plain",
  until = "test",
}: HostOptions = {}): Promise<SystemdHost> {
  const lower = await debianRoot();
  const place = takePlace();
  const { root, directory } = place;
  const consoleFile = join(directory, "console.log");
  const bootDirectory = join(directory, "boot");
  const container = new Container({
    ...{ place, consoleFile, privateNetwork: network === "private" },
    // A file system of a disk, as GRUB needs one to write to; the root itself is an overlay.
    ...(loader === "grub" && { binds: { "/boot": bootDirectory } }),
  });
  const closers: (() => void)[] = [];

  const dispose = async (): Promise<void> => {
    for (const close of closers.splice(0)) close();
    await container.kill();
    await giveUpPlace(place);
  };
  if (until === "test") onTestFinished(dispose);

  try {
    await mountOverlay(lower, directory, root);
    await must(PREPARE_ROOT, root, name);
  } catch (error) {
    await dispose();
    throw error;
  }
  const link = network === "private" ? await createPrivateNetwork(place.namespace) : null;
  if (link) {
    closers.push(() => {
      link.close();
    });
    await writeFile(join(root, "etc/host-address"), `${link.innerAddress}\n`);
  }
  const privateLink = (): NonNullable<typeof link> => {
    if (!link) throw new Error("the host shares this machine's network");
    return link;
  };

  const store = ["--store", `local?root=${root}`];
  const profileLink = join(root, "nix/var/nix/profiles/system");
  const profileDirectory = dirname(profileLink);

  const generation = async (linkName: string): Promise<ProfileState | null> => {
    const number = /^system-(\d+)-link$/.exec(linkName)?.[1];
    const toplevel = await readLink(join(profileDirectory, linkName));
    return number === undefined || toplevel === null
      ? null
      : { generation: Number(number), toplevel };
  };

  const exec = async (command: string, ...args: string[]): Promise<ProcessResult> => {
    const leader = container.leader();
    if (leader === null) throw new Error(`${name} is off`);
    const namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"];
    return runProcess("nsenter", [`--target=${leader}`, ...namespaces, "--", command, ...args], {
      env: HOST_ENVIRONMENT,
      timeoutMs: EXEC_TIMEOUT_MS,
      maxOutput: 16 * 1024 * 1024,
    });
  };
  /** In the host while it is up, in its files while it is off. */
  const look = (command: string, ...args: string[]): Promise<ProcessResult> =>
    container.isUp
      ? exec(command, ...args)
      : runProcess("chroot", [root, command, ...args], {
          env: HOST_ENVIRONMENT,
          timeoutMs: EXEC_TIMEOUT_MS,
          maxOutput: 16 * 1024 * 1024,
        });

  const linkInside = (path: string): Promise<string | null> => {
    const leader = container.leader();
    return leader === null ? Promise.resolve(null) : readLink(`/proc/${leader}/root${path}`);
  };

  const host: SystemdHost = {
    name,
    root,

    async install(toplevel) {
      if (container.isUp) throw new Error(`${name} is on`);
      await host.importClosure(toplevel);
      await must("nix-env", ...store, "--profile", profileLink, "--set", toplevel);
      if (loader === "grub") {
        await mkdir(bootDirectory);
        await writeFile(join(bootDirectory, "uuid"), "1234-5678\n");
        const script = 'mount --bind "$1" "$2/boot" && chroot "$2" "$3/install-boot-loader" "$3"';
        await must("unshare", "--mount", "sh", "-c", script, "sh", bootDirectory, root, toplevel);
        return;
      }
      await mkdir(join(root, "boot/loader"), { recursive: true });
      await writeFile(join(root, "boot/loader/default"), `${toplevel}\n`);
    },
    async importClosure(toplevel) {
      const features = ["--extra-experimental-features", "nix-command"];
      await must("nix", "copy", ...features, "--no-check-sigs", "--to", store[1] ?? "", toplevel);
    },

    async boot() {
      container.start();
      await host.waitForBoot(null);
    },
    powerOn() {
      container.start();
    },
    async powerOff() {
      if (!container.isUp) return;
      await exec("systemctl", "poweroff");
      const off = await Promise.race([
        container.ended.then(() => true),
        delay(BOOT_TIMEOUT_MS, false, { ref: false }),
      ]);
      if (!off) throw new Error(`${name} does not power off:\n${tail(host.console())}`);
    },
    async powerCut() {
      await container.kill();
    },
    async restart() {
      const before = host.bootId();
      await exec("systemctl", "reboot");
      await host.waitForBoot(before);
    },
    async waitForBoot(previous) {
      await host.waitFor(
        async () => {
          if (!container.isUp) throw new Stop(`${name} is down`);
          const id = host.bootId();
          return id !== null && id !== previous && (await host.isBooted());
        },
        "multi-user.target",
        BOOT_TIMEOUT_MS,
      );
    },

    get isUp() {
      return container.isUp;
    },
    async isBooted() {
      if (container.leader() === null) return false;
      const { stdout } = await exec("systemctl", "is-active", "multi-user.target");
      return stdout.trim() === "active";
    },
    bootId() {
      const leader = container.leader();
      if (leader === null) return null;
      try {
        return readFileSync(`/proc/${leader}/root/proc/sys/kernel/random/boot_id`, "utf8").trim();
      } catch {
        return null;
      }
    },

    exec,
    async succeed(command, ...args) {
      const result = await exec(command, ...args);
      if (result.exitCode !== 0) throw new Error(describe(result));
      return result.stdout.trim();
    },
    switchTo: (toplevel, action) => exec(`${toplevel}/bin/switch-to-configuration`, action),

    async waitFor(condition, description, timeoutMs = 3 * 60_000) {
      const end = performance.now() + timeoutMs;
      let cause: unknown;
      let stopped = false;
      while (performance.now() < end && !stopped) {
        try {
          if (await condition()) return;
          cause = undefined;
        } catch (error) {
          cause = error;
          stopped = error instanceof Stop;
        }
        await delay(POLL_MS);
      }
      const said = await host.logs().catch(String);
      throw new Error(
        `${name}: expected ${description} within ${timeoutMs / 1000} s; console:\n` +
          `${tail(host.console())}\njournal:\n${tail(said, 60)}`,
        { cause },
      );
    },

    async unit(unitName) {
      const names = {
        LoadState: "loadState",
        ActiveState: "activeState",
        SubState: "subState",
        Result: "result",
        MainPID: "mainPid",
        InvocationID: "invocationId",
        FragmentPath: "fragmentPath",
      };
      const property = `--property=${Object.keys(names).join(",")}`;
      const text = await host.succeed("systemctl", "show", property, "--", unitName);
      const values = new Map(
        text.split("\n").map((line) => {
          const at = line.indexOf("=");
          return [line.slice(0, at), line.slice(at + 1)];
        }),
      );
      const value = (key: keyof typeof names): string => values.get(key) ?? "";
      return {
        loadState: value("LoadState"),
        activeState: value("ActiveState"),
        subState: value("SubState"),
        result: value("Result"),
        mainPid: Number(value("MainPID")),
        invocationId: value("InvocationID"),
        fragmentPath: value("FragmentPath"),
      };
    },
    async failedUnits() {
      const options = ["--state=failed", "--plain", "--no-legend", "--full"];
      const text = await host.succeed("systemctl", "list-units", ...options);
      return text
        .split("\n")
        .map((line) => line.split(" ")[0] ?? "")
        .filter((unit) => unit !== "");
    },
    async logs(unit) {
      const ofUnit = unit === undefined ? [] : ["--unit", unit];
      const { stdout } = await look("journalctl", "--no-pager", "--output=short-iso", ...ofUnit);
      return stdout;
    },
    console() {
      try {
        return readFileSync(consoleFile, "utf8").replaceAll("\r", "");
      } catch {
        return "";
      }
    },

    currentSystem: () => linkInside("/run/current-system"),
    bootedSystem: () => linkInside("/run/booted-system"),
    async bootDefault() {
      try {
        if (loader === "grub") {
          const menu = await readFile(join(bootDirectory, "grub/grub.cfg"), "utf8");
          return /\binit=(\S+)\/init\b/.exec(menu)?.[1] ?? null;
        }
        return (await readFile(join(root, "boot/loader/default"), "utf8")).trim();
      } catch {
        return null;
      }
    },
    async profile() {
      const linkName = await readLink(profileLink);
      return linkName === null ? null : generation(basename(linkName));
    },
    async generations() {
      const found = await Promise.all((await readdir(profileDirectory)).map(generation));
      return found.filter((state) => state !== null).sort((a, b) => a.generation - b.generation);
    },
    async gcRoots() {
      const rootsDirectory = join(root, "nix/var/nix/gcroots/nixos-pull");
      const names = await readdir(rootsDirectory).catch(() => []);
      const roots = await Promise.all(
        names.map(async (entry) => [entry, await readLink(join(rootsDirectory, entry))] as const),
      );
      return Object.fromEntries(roots.filter((entry): entry is [string, string] => !!entry[1]));
    },
    async state() {
      const stateDirectory = join(root, "var/lib/nixos-pull");
      const entries = await readdir(stateDirectory, { recursive: true, withFileTypes: true }).catch(
        () => [],
      );
      const files = await Promise.all(
        entries
          .filter((entry) => entry.isFile())
          .map(async (entry) => {
            const path = join(entry.parentPath, entry.name);
            const text = await readFile(path, "utf8").catch(() => "");
            return [path.slice(stateDirectory.length + 1), parsed(text)] as const;
          }),
      );
      return Object.fromEntries(files);
    },
    async readFile(path) {
      const { exitCode, stdout } = await look("cat", path);
      return exitCode === 0 ? stdout : null;
    },

    reach: (url) => (link ? link.reach(url) : Promise.resolve(url)),
    cutNetwork: () => privateLink().cut(),
    restoreNetwork: () => privateLink().restore(),

    dispose,
  };
  return host;
}

/** Ends a wait at once: what is waited for cannot come. */
class Stop extends Error {}

const HOST_ENVIRONMENT = {
  PATH: "/run/current-system/sw/bin:/usr/bin:/bin:/usr/sbin:/sbin",
  HOME: "/root",
  LANG: "C.UTF-8",
};

let builtRoot: Promise<string> | undefined;

function debianRoot(): Promise<string> {
  builtRoot ??= must(BUILD_ROOT).then(({ stdout }) => stdout.trim());
  return builtRoot;
}

/** Nothing is synced: what the tests cut is processes; test/hosts/power-cut cuts the disk. */
async function mountOverlay(lower: string, directory: string, root: string): Promise<void> {
  const upper = join(directory, "upper");
  const work = join(directory, "work");
  await mkdir(upper);
  await mkdir(work);
  const options = `lowerdir=${lower},upperdir=${upper},workdir=${work},volatile`;
  await must("mount", "-t", "overlay", "overlay", "-o", options, root);
}

async function must(command: string, ...args: string[]): Promise<ProcessResult> {
  const result = await runProcess(command, args, {
    env: testEnvironment(),
    timeoutMs: 10 * 60_000,
  });
  if (result.exitCode !== 0) throw new Error(describe(result));
  return result;
}

function describe({ command, args, exitCode, stdout, stderr }: ProcessResult): string {
  return `${command} ${args.join(" ")} ended with ${exitCode}:\n${stdout}${stderr}`;
}

async function readLink(path: string): Promise<string | null> {
  try {
    return await readlink(path);
  } catch {
    return null;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function tail(text: string, lines = 25): string {
  return text.split("\n").slice(-lines).join("\n");
}

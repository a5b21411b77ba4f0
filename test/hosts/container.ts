import { spawn, type ChildProcess } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { testEnvironment } from "../support/nixos-pull.ts";
import type { HostPlace } from "./lifetime.ts";

/** systemd-nspawn's way to say "start me again" under --keep-unit. */
const EXIT_REBOOT = 133;

export interface ContainerOptions {
  readonly place: HostPlace;
  readonly consoleFile: string;
  readonly privateNetwork: boolean;
  /** What is mounted at a path inside: a directory of this machine. */
  readonly binds?: Readonly<Record<string, string>>;
}

/**
 * A systemd-nspawn container whose PID 1 comes from the boot loader in its root. It is
 * started again when the system inside reboots, and stays down when it powers off or
 * fails to boot.
 */
export class Container {
  readonly #options: ContainerOptions;
  #process: ChildProcess | null = null;
  #ended: Promise<void> = Promise.resolve();
  #killed = false;

  constructor(options: ContainerOptions) {
    this.#options = options;
  }

  /** Resolves when the container is down. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  get isUp(): boolean {
    return this.#process !== null;
  }

  start(): void {
    if (this.#process) throw new Error("the host is on already");
    this.#killed = false;
    const { place, consoleFile, privateNetwork, binds = {} } = this.#options;
    mkdirSync(place.cgroup, { recursive: true });
    const network = privateNetwork
      ? [`--network-namespace-path=/run/netns/${place.namespace}`, "--capability=CAP_NET_ADMIN"]
      : [];
    const nspawn = [
      ...["systemd-nspawn", "--quiet", "--register=no", "--keep-unit"],
      ...[`--machine=${place.id}`, `--directory=${place.root}`, "--kill-signal=SIGRTMIN+3"],
      ...["--resolv-conf=off", "--timezone=off", "--link-journal=no", ...network],
      ...Object.entries(binds).map(([inside, outside]) => `--bind=${outside}:${inside}`),
      "/usr/local/sbin/boot-loader",
    ].join(" ");
    // systemd-nspawn wants a terminal, which script gives, and a cgroup of its own.
    const child = spawn(
      "sh",
      [
        "-c",
        'echo $$ > "$1/cgroup.procs" && exec script --quiet --return --append --flush --command "$2" "$3"',
        "sh",
        place.cgroup,
        `exec ${nspawn}`,
        consoleFile,
      ],
      {
        env: { ...testEnvironment(), TERM: "dumb", SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: "1" },
        stdio: "ignore",
        detached: true,
      },
    );
    this.#process = child;
    this.#ended = this.#follow(child);
  }

  async #follow(child: ChildProcess): Promise<void> {
    const exitCode = await new Promise<number | null>((resolve) => {
      child.once("close", resolve);
    });
    // Linux counts kills of a cgroup and ends what is started in one that had some.
    const { cgroup } = this.#options.place;
    for (let tries = 0; tries < 250 && !removedCgroups(cgroup); tries++) await delay(20);
    this.#process = null;
    if (exitCode !== EXIT_REBOOT || this.#killed) return;
    this.start();
    await this.#ended;
  }

  /** kill -9 of everything in the container, at once. */
  async kill(): Promise<void> {
    this.#killed = true;
    try {
      if (this.#process) writeFileSync(join(this.#options.place.cgroup, "cgroup.kill"), "1");
    } catch {
      // It is ending already.
    }
    await this.#ended;
  }

  /** Process id, here, of the container's PID 1; null while there is none. */
  leader(): number | null {
    for (const nspawn of childrenOf(this.#process?.pid)) {
      for (const child of childrenOf(nspawn)) {
        if (isFirstInNamespace(child) && existsSync(`/proc/${child}/root/run`)) return child;
      }
    }
    return null;
  }
}

/** Removes a cgroup and those below it; false while a process is still in one. */
function removedCgroups(cgroup: string): boolean {
  if (!existsSync(cgroup)) return true;
  try {
    for (const entry of readdirSync(cgroup, { withFileTypes: true })) {
      if (entry.isDirectory() && !removedCgroups(join(cgroup, entry.name))) return false;
    }
    rmdirSync(cgroup);
    return true;
  } catch {
    return false;
  }
}

function childrenOf(pid: number | undefined): number[] {
  if (pid === undefined) return [];
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
      .split(" ")
      .filter((text) => text !== "")
      .map(Number);
  } catch {
    return [];
  }
}

/** The process ids that a process has, one for each namespace, end with 1 (proc(5), NSpid). */
function isFirstInNamespace(pid: number): boolean {
  try {
    return /^NSpid:\t\d+\t1$/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { testEnvironment } from "../support/nixos-pull.ts";

/**
 * What a test host takes of the machine, by name. The id names the process that made
 * it, so that a later run can take away what a killed one left.
 */
export interface HostPlace {
  readonly id: string;
  readonly directory: string;
  /** The root file system, mounted. */
  readonly root: string;
  readonly cgroup: string;
  readonly namespace: string;
}

/** Overlay upper directories need a disk file system: /tmp may be none. */
const HOSTS_DIRECTORY = process.env["NIXOS_PULL_HOSTS"] ?? "/var/tmp/nixos-pull-hosts";
const REMOVE_HOST = fileURLToPath(new URL("remove-host", import.meta.url));
const ID = /^np-(\d+)-(\d+)-\d+$/;

const living = new Map<string, HostPlace>();
let count = 0;

/** Takes a place for a host; the place is given up when this process ends, however it does. */
export function takePlace(): HostPlace {
  if (count === 0) {
    sweep();
    giveUpAtExit();
  }
  const id = `np-${process.pid}-${startTime(process.pid)}-${++count}`;
  const place = placeOf(id);
  living.set(id, place);
  mkdirSync(place.root, { recursive: true });
  return place;
}

/** Ends the host's processes and removes everything of it. */
export async function giveUpPlace(place: HostPlace): Promise<void> {
  const result = await runProcess(REMOVE_HOST, argumentsOf(place), {
    env: testEnvironment(),
    timeoutMs: 60_000,
  });
  living.delete(place.id);
  if (result.exitCode !== 0) throw new Error(`${REMOVE_HOST}: ${result.stderr}`);
}

function placeOf(id: string): HostPlace {
  const directory = join(HOSTS_DIRECTORY, id);
  return {
    id,
    directory,
    root: join(directory, "root"),
    cgroup: join(unifiedCgroups(), id),
    namespace: id,
  };
}

function argumentsOf({ directory, cgroup, namespace }: HostPlace): string[] {
  return [directory, cgroup, namespace];
}

/** Removes what processes left that are no longer there. */
function sweep(): void {
  mkdirSync(HOSTS_DIRECTORY, { recursive: true });
  for (const id of readdirSync(HOSTS_DIRECTORY)) {
    const [, pid, start] = ID.exec(id) ?? [];
    if (pid !== undefined && startTime(Number(pid)) !== start) removeNow(placeOf(id));
  }
}

function removeNow(place: HostPlace): void {
  spawnSync(REMOVE_HOST, argumentsOf(place), { stdio: "inherit" });
}

function giveUpAtExit(): void {
  const giveUpAll = (): void => {
    for (const place of living.values()) removeNow(place);
    living.clear();
  };
  process.once("exit", giveUpAll);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(signal, () => {
      giveUpAll();
      process.kill(process.pid, signal);
    });
  }
}

/** When a process started, in clock ticks since boot (proc(5), stat, field 22), or null. */
function startTime(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? null;
  } catch {
    return null;
  }
}

/** Where the cgroup v2 hierarchy is mounted: with or without the old ones beside it. */
function unifiedCgroups(): string {
  const line = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((text) => text.split(" "))
    .find(([, , type]) => type === "cgroup2");
  if (line?.[1] === undefined) throw new Error("expected a cgroup2 mount, found none");
  return line[1];
}

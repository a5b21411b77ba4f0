import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { savedRecordSchema, type AgentRecord } from "../../agent/core/update/record.ts";
import { readChecked } from "../../agent/effects/files/checked-file.ts";
import { History } from "../../agent/effects/state/history.ts";
import type { HistoryEntry } from "../../agent/core/update/history-entry.ts";
import { serveMirror } from "../support/mirror-server.ts";
import { createOperator } from "../support/sandbox.ts";
import { temporaryDirectory } from "../support/temporary.ts";
import { createSystemdHost, type HostOptions, type SystemdHost } from "./host.ts";
import { buildToplevel, type ToplevelOptions } from "./toplevel.ts";

const STATE_DIRECTORY = "var/lib/nixos-pull";
const SWITCH_UNIT = "nixos-pull-switch.service";
const DEADLINE_TIMER = "nixos-pull-deadline.timer";
const AGENT_UNIT = "nixos-pull.service";

/** Writes the menu of a host that has GRUB; also of the machines of test/hosts/boot-loaders. */
const GRUB_INSTALLER = fileURLToPath(new URL("boot-loaders/install-grub.sh", import.meta.url));

/** How long an update with its health gate may take on a slow machine. */
const END_TIMEOUT_MS = 5 * 60_000;

/** Settings that let a test wait seconds where an operator waits minutes. */
const SHORT_SETTINGS = {
  poll: { interval: "1s", jitter: "0s" },
  activation: { timeout: "20s", retryWait: "1s" },
  limits: { retryBase: "1s", reserveBytes: 0, connectTimeout: "2s" },
  log: { level: "debug", format: "text" },
};

const SHORT_HEALTH = { settle: "1s", timeout: "10s", interval: "1s" };

export interface ReleasedHostOptions extends Pick<HostOptions, "network" | "loader"> {
  /** Settings beside the short ones, by section. */
  readonly settings?: Readonly<Record<string, Record<string, unknown>>>;
  /** What is special about the system that the host has at first. */
  readonly first?: ToplevelOptions;
}

/** What a host is, from every side that a person could look at it. */
export interface HostEnd {
  readonly running: string | null;
  readonly bootDefault: string | null;
  readonly profile: string | null;
  readonly state: string | undefined;
  readonly committed: string | null | undefined;
  readonly denied: readonly string[] | undefined;
  readonly rebootPending: boolean | undefined;
  readonly roots: Readonly<Record<string, string>>;
  readonly staging: readonly string[];
  readonly switchUnit: string;
  readonly deadlineTimer: string;
}

/** A host whose agent runs as a service and has adopted release 1, the system it booted. */
export interface ReleasedHost extends SystemdHost {
  /** The system of release 1. */
  readonly first: string;
  /** Builds a system with this host's configuration; `generation` tells it from others. */
  build(options: ToplevelOptions): Promise<string>;
  /** Builds a system and publishes it as the next release; gives its path. */
  release(options: ToplevelOptions): Promise<string>;

  record(): Promise<AgentRecord | null>;
  history(): Promise<HistoryEntry[]>;
  /** Names of the events of a release, in order. */
  events(toplevel: string): Promise<string[]>;
  waitForState(name: AgentRecord["state"]["name"]): Promise<void>;
  waitForEvent(event: string, toplevel: string, timeoutMs?: number): Promise<HistoryEntry>;
  /** Waits until the agent is at rest and has recorded the system as what this host is. */
  waitForCommit(toplevel: string): Promise<void>;
  /** Waits until the agent is at rest and will not try the system again. */
  waitForDenial(toplevel: string, timeoutMs?: number): Promise<void>;
  /** Waits until the agent has tried the system as often as it may, and waits for another one. */
  waitForGivingUp(toplevel: string, timeoutMs?: number): Promise<void>;
  end(): Promise<HostEnd>;

  /** Whatever the agent, or a switch, holds on to waits while the hold is there. */
  hold(what: "health" | "switch"): Promise<void>;
  letGo(what: "health" | "switch"): Promise<void>;
}

/** At the end of an activation script: waits while the test holds the switch. */
export const HELD_SWITCH = waitWhile("switch");

function waitWhile(what: string): string {
  return `while [ -e /var/tmp/hold-${what} ]; do sleep 0.1; done`;
}

/** nixos-pull.service as the NixOS module has it: no switch stops or restarts it. */
export function agentUnit({ version = "1", untouched = true, lines = "" } = {}): string {
  return [
    "[Unit]",
    "Description=Pull-based release agent",
    "After=network.target",
    "StartLimitIntervalSec=0",
    untouched ? "X-StopOnRemoval=false" : "",
    "[Service]",
    "Type=exec",
    "ExecStart=@nixos-pull@/bin/nixos-pull run",
    "Environment=PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root",
    `Environment=AGENT_VERSION=${version}`,
    "StateDirectory=nixos-pull",
    "Restart=always",
    "RestartSec=1",
    "SuccessExitStatus=130",
    "KillMode=mixed",
    "TimeoutStopSec=140",
    "OOMPolicy=continue",
    untouched ? "X-RestartIfChanged=false" : "",
    lines,
    "[Install]",
    "WantedBy=multi-user.target",
  ].join("\n");
}

/** A service that runs and says its version in its environment. */
export function service(version: string): string {
  return [
    "[Service]",
    "ExecStart=/bin/sleep infinity",
    `Environment=VERSION=${version}`,
    "[Install]",
    "WantedBy=multi-user.target",
  ].join("\n");
}

/** A service that runs one shell command when it is started; it has no single quotes. */
export function oneshot(command: string): string {
  return [
    "[Service]",
    "Type=oneshot",
    `ExecStart=/bin/sh -c '${command}'`,
    "[Install]",
    "WantedBy=multi-user.target",
  ].join("\n");
}

export async function createReleasedHost({
  network = "shared",
  loader = "plain",
  settings = {},
  first: firstOptions = {},
}: ReleasedHostOptions = {}): Promise<ReleasedHost> {
  const operator = await createOperator();
  const mirror = await serveMirror(operator.mirror);
  const host = await createSystemdHost({ network, loader });
  const holdHealth = {
    kind: "command",
    name: "held by the test",
    command: ["/bin/sh", "-c", waitWhile("health")],
    timeout: "10m",
  };
  const { health, ...others } = settings;
  const agentConfig: Record<string, unknown> = {
    hostname: host.name,
    mirrors: [await host.reach(mirror.url)],
    publicKeys: [operator.publicKey],
    ...SHORT_SETTINGS,
    health: { ...SHORT_HEALTH, checks: [holdHealth], ...health },
  };
  for (const [section, values] of Object.entries(others)) {
    agentConfig[section] = { ...(agentConfig[section] as object | undefined), ...values };
  }
  const build = (options: ToplevelOptions): Promise<string> =>
    buildToplevel({
      ...{ agentConfig, agentUnit: agentUnit() },
      ...(loader === "grub" && { grub: true, bootLoaderInstaller: GRUB_INSTALLER }),
      ...options,
    });
  const publish = async (toplevel: string): Promise<void> => {
    // Some have no agent, which is what is looked at.
    await operator.publish({ [host.name]: toplevel }, "--allow-without-agent", host.name);
  };

  const first = await build({
    generation: "1",
    units: { "web.service": service("1") },
    ...firstOptions,
  });
  await publish(first);
  await host.install(first);

  const stateDirectory = join(host.root, STATE_DIRECTORY);
  const history = new History(stateDirectory);
  const holdFile = (what: string): string => join(host.root, `var/tmp/hold-${what}`);

  const released: ReleasedHost = Object.assign(Object.create(host) as SystemdHost, {
    first,
    build,
    async waitFor(...wait: Parameters<SystemdHost["waitFor"]>) {
      try {
        await host.waitFor(...wait);
      } catch (error) {
        const lines = (await history.read()).map((entry) => JSON.stringify(entry));
        throw new Error(`${(error as Error).message}\nhistory:\n${lines.join("\n")}`, {
          cause: error,
        });
      }
    },
    async release(options: ToplevelOptions) {
      const toplevel = await build(options);
      await publish(toplevel);
      return toplevel;
    },

    async record() {
      const read = await readChecked(join(stateDirectory, "state.json"), savedRecordSchema);
      return read.kind === "read" ? read.value : null;
    },
    history: () => history.read(),
    async events(toplevel: string) {
      return (await history.read())
        .filter((entry) => entry.toplevel === toplevel && entry.event !== "ManifestAccepted")
        .map(({ event }) => event);
    },
    waitForState: (name: string) =>
      released.waitFor(
        async () => (await released.record())?.state.name === name,
        `the state ${name}`,
        END_TIMEOUT_MS,
      ),
    async waitForEvent(event: string, toplevel: string, timeoutMs = END_TIMEOUT_MS) {
      let found: HistoryEntry | undefined;
      await released.waitFor(
        async () => {
          const entries = await history.read();
          found = entries.find((entry) => entry.event === event && entry.toplevel === toplevel);
          return found !== undefined;
        },
        `${event} of ${toplevel}`,
        timeoutMs,
      );
      return found!;
    },
    waitForCommit: (toplevel: string) =>
      released.waitFor(
        async () => {
          const record = await released.record();
          return record?.state.name === "Idle" && record.committed?.toplevel === toplevel;
        },
        `${toplevel} committed`,
        END_TIMEOUT_MS,
      ),
    waitForDenial: (toplevel: string, timeoutMs = END_TIMEOUT_MS) =>
      released.waitFor(
        async () => {
          const record = await released.record();
          return (
            record?.state.name === "Idle" &&
            record.denied.some((entry) => entry.toplevel === toplevel)
          );
        },
        `${toplevel} denied`,
        timeoutMs,
      ),
    waitForGivingUp: (toplevel: string, timeoutMs = END_TIMEOUT_MS) =>
      released.waitFor(
        async () => {
          const state = (await released.record())?.state;
          return (
            state?.name === "Failed" && state.gaveUp === true && state.release.toplevel === toplevel
          );
        },
        `${toplevel} given up`,
        timeoutMs,
      ),
    async end() {
      const record = await released.record();
      const state = await host.state();
      return {
        running: await host.currentSystem(),
        bootDefault: await host.bootDefault(),
        profile: (await host.profile())?.toplevel ?? null,
        state: record?.state.name,
        committed: record && (record.committed?.toplevel ?? null),
        denied: record?.denied.map(({ toplevel }) => toplevel),
        rebootPending: record ? record.pendingReboot !== null : undefined,
        roots: await host.gcRoots(),
        staging: Object.keys(state).filter((path) => path.startsWith("staging/")),
        switchUnit: (await host.unit(SWITCH_UNIT)).loadState,
        deadlineTimer: (await host.unit(DEADLINE_TIMER)).loadState,
      };
    },

    hold: (what: string) => writeFile(holdFile(what), ""),
    letGo: (what: string) => rm(holdFile(what), { force: true }),
  });

  await host.boot();
  await released.waitForCommit(first);
  return released;
}

/** The end of every update that succeeds: one system, everywhere, and nothing left over. */
export async function expectCommitted(
  host: ReleasedHost,
  toplevel: string,
  previous = host.first,
): Promise<void> {
  await host.waitForCommit(toplevel);
  expect(await host.end()).toEqual({
    running: toplevel,
    bootDefault: toplevel,
    profile: toplevel,
    state: "Idle",
    committed: toplevel,
    denied: [],
    rebootPending: false,
    roots: { current: toplevel, previous },
    staging: [],
    switchUnit: "not-found",
    deadlineTimer: "not-found",
  });
  await expectCleanStore(host);
}

/** The end of every update that fails for good: the old system, and the new one denied. */
export async function expectRolledBack(
  host: ReleasedHost,
  denied: string,
  timeoutMs = END_TIMEOUT_MS,
): Promise<void> {
  await host.waitForDenial(denied, timeoutMs);
  await expectBack(host, { state: "Idle", denied: [denied] });
}

/** Expects that a system which may not be to blame was undone, and waits for a person or another. */
export async function expectGivenUp(host: ReleasedHost, toplevel: string): Promise<void> {
  await host.waitForGivingUp(toplevel);
  await expectBack(host, { state: "Failed", denied: [] });
}

async function expectBack(
  host: ReleasedHost,
  expected: Pick<HostEnd, "state" | "denied">,
): Promise<void> {
  expect(await host.end()).toEqual({
    ...expected,
    running: host.first,
    bootDefault: host.first,
    profile: host.first,
    committed: host.first,
    rebootPending: false,
    roots: {},
    staging: [],
    switchUnit: "not-found",
    deadlineTimer: "not-found",
  });
  await expectCleanStore(host);
}

async function expectCleanStore(host: ReleasedHost): Promise<void> {
  expect(await host.succeed("nix-store", "--verify", "--check-contents")).toBe("");
}

/** The environment variable of the process that runs as a unit, or null. */
export async function variableOf(
  host: SystemdHost,
  unit: string,
  name: string,
): Promise<string | null> {
  const { mainPid } = await host.unit(unit);
  const { stdout } = await host.exec("cat", `/proc/${mainPid}/environ`);
  const entry = stdout.split("\0").find((text) => text.startsWith(`${name}=`));
  return entry?.slice(name.length + 1) ?? null;
}

/** The bundle that the agent's process was started from, seen from the store. */
export async function agentProgram(host: SystemdHost): Promise<string | null> {
  const { mainPid } = await host.unit(AGENT_UNIT);
  const { stdout } = await host.exec("cat", `/proc/${mainPid}/cmdline`);
  return stdout.split("\0").find((text) => text.endsWith("nixos-pull.cjs")) ?? null;
}

/** What the running system would start as the agent. */
export async function installedProgram(host: SystemdHost): Promise<string> {
  const program = await host.succeed("readlink", "-f", "/run/current-system/sw/bin/nixos-pull");
  return program.replace(/\/bin\/nixos-pull$/, "/lib/nixos-pull.cjs");
}

/** The shipped agent with other bytes: a store path of its own. */
export async function anotherBundle(): Promise<string> {
  const bundle = join(await temporaryDirectory(), "nixos-pull.cjs");
  const text = await readFile(new URL("../../dist/nixos-pull.cjs", import.meta.url), "utf8");
  await writeFile(bundle, `${text}\n// another build\n`);
  return bundle;
}

import type { FileFacts, MountFacts } from "../../agent/core/doctor/file-facts.ts";
import type { Route, ServerCertificate } from "../../agent/core/doctor/route.ts";
import type { ClockFacts } from "../../agent/core/doctor/time.ts";
import type { UnitFacts } from "../../agent/core/doctor/units.ts";
import { PullError, type ErrorCode } from "../../agent/core/errors.ts";
import type { ActivationMode, HostEntry, Manifest } from "../../agent/core/formats/manifest.ts";
import type { PendingReport } from "../../agent/core/formats/pending-report.ts";
import type {
  CachedManifest,
  ClosureFetch,
  FetchSummary,
  FreeSpace,
  BootLoader,
  Generations,
  HookRun,
  NixStore,
  ReportOutlets,
  ServiceManager,
  ToldProgress,
  UnitTroubles,
} from "../../agent/core/ports.ts";
import type { Confirmation } from "../../agent/core/schedule/confirmation.ts";
import type { HoldRead } from "../../agent/core/schedule/hold.ts";
import { parseSettings, type Settings } from "../../agent/core/settings.ts";
import type { HistoryEntry } from "../../agent/core/update/history-entry.ts";
import type { StoreAccess } from "../../agent/core/transfer/store-access.ts";
import { CheckFailure } from "../../agent/core/update/check-failure.ts";
import { EMPTY_RECORD, recordSchema, type AgentRecord } from "../../agent/core/update/record.ts";
import {
  NO_FACTS,
  type SwitchFacts,
  type FailedSnippet,
} from "../../agent/core/update/switch-output.ts";
import type { AgentTools } from "../../agent/host/agent-tools.ts";
import { MirrorStandings } from "../../agent/host/poll/mirror-standings.ts";
import { VerifiedOffers } from "../../agent/host/poll/verified-offers.ts";
import { MemoryMirror } from "./memory-mirror.ts";
import { recordingLog } from "./recording-log.ts";
import { sealManifest } from "./release-series.ts";
import { sampleHost, sampleManifest, samplePath } from "./sample-release.ts";
import { testKey } from "./test-key.ts";
import { VirtualTime } from "./virtual-time.ts";

const KEY = testKey("fleet-1");

/** The toplevel of a system, by a short name. */
export function system(name: string): string {
  return samplePath(`nixos-system-web1-${name}`);
}

/** Store paths of systems as their short names. */
export function shortened(text: string): string {
  return text.replaceAll(/\/nix\/store\/[0-9a-z]{32}-nixos-system-web1-/g, "");
}

/** How one run of switch-to-configuration goes. */
export interface SwitchOutcome {
  /** Null if a signal ends it. */
  readonly exitCode: number | null;
  readonly timedOut?: boolean;
  /** Whether another switch holds the lock in the end; as the exit code lets one expect if absent. */
  readonly lockHeld?: boolean;
  readonly lines?: readonly string[];
  /** Whether the system runs afterwards; as the exit code lets one expect if absent. */
  readonly moves?: boolean;
  /** What its output shows. */
  readonly facts?: Partial<SwitchFacts>;
  /** What else happens meanwhile. */
  readonly meanwhile?: () => void;
}

/** A release, as far as scenarios differ by it. */
export interface PublishedRelease extends Partial<Omit<Manifest, "hosts">> {
  readonly sequence: number;
  /** The short name of the host's system. */
  readonly system: string;
  readonly mode?: ActivationMode;
  /** The host's entry beside that. */
  readonly entry?: Partial<HostEntry>;
  /** Other hosts in place of web1. */
  readonly hosts?: Manifest["hosts"];
}

/** Exit codes with which switch-to-configuration has switched all the same. */
const SWITCHES = [0, 4];
/** Those with which the boot loader was installed, if it was to be. */
const INSTALLS = [...SWITCHES, 100];

/**
 * A whole host in memory, behind the agent's ports. It does what the agent asks: it keeps a
 * profile, roots, units, files and a clock, and notes every change in `calls`. Tests set what
 * goes wrong. At the start it runs the system `1`, which nobody released.
 */
export class MemoryHost {
  readonly time = new VirtualTime("2026-02-01T00:00:00.000Z");
  readonly log = recordingLog();
  readonly settings: Settings;
  /** Every port of the host; tests may replace some of them in a copy. */
  readonly tools: AgentTools;
  readonly mirrors: readonly MemoryMirror[];
  /**
   * What the agent changed outside of its own files, in order, with systems by their short
   * names; between them, in brackets, the states that it recorded.
   */
  calls: string[] = [];

  readonly generations = new Map<number, string>([[1, system("1")]]);
  generation: number | null = 1;
  running: string | null = system("1");
  booted: string | null = system("1");
  /** The kernel of each system; `linux` if there is none here. */
  readonly kernels = new Map<string, string>();
  readonly valid = new Set<string>([system("1")]);
  /** How Nix reaches the store. */
  access: StoreAccess = {
    ...{ via: "own", user: "root", trusted: null, keys: null, requiresSignatures: true },
  };
  /** What fetches tell of garbage that they had collected. */
  collects: { wanted: number; freed: number } | null = null;
  /** Systems that mirrors do not have as they must be, with what a repair says of them. */
  readonly badNars = new Map<string, PullError>();
  /** Valid systems that are damaged. */
  readonly damaged = new Set<string>();
  /** The specialisations of systems: their toplevels by name. */
  readonly specialisations = new Map<string, ReadonlyMap<string, string>>();
  /** Names of systems that have one of their own. */
  readonly names = new Map<string, string>();
  /** Systems without a bin/switch-to-configuration, and those that know its action `check`. */
  readonly unswitchable = new Set<string>();
  readonly checking = new Set<string>();
  readonly roots = new Map<string, string>();
  missingBootSpace: { directory: string; needed: number; free: number } | null = null;
  /** Beside which generations there had to be room for a kernel, when that was asked last. */
  roomAskedFor: Generations | null = null;

  /** What the boot loader starts, and what it starts once before that. */
  bootDefault: string | null = system("1");
  oneShot: string | null = null;
  /** Why the boot loader cannot start a system once. */
  cannotTry: string | null = "this boot loader is not known to start a system once";
  /** Systems that never come up: the next reset boots again. */
  readonly dead = new Set<string>();
  /** What a tool throws while the agent is being stopped. */
  readonly interrupted = new PullError("INTERRUPTED", "stopped");

  /** Snippets of the activation script that failed in this boot. */
  failedInBoot: readonly FailedSnippet[] | null = [];
  /** Who inhibits a shutdown, who is logged in, and what users were told. */
  inhibitors: string[] = [];
  users: string[] = [];
  readonly warnings: string[] = [];
  /** Whether the last reboot left nobody a say. */
  forced = false;

  bootId = "boot 1";
  units: UnitTroubles | null = { failed: [], restarts: new Map() };
  deadline: readonly string[] | null = null;
  bootDeadline: string | null = null;
  /** What another agent, found in the new system, is like. */
  successor = { differs: false, hasUnit: true };
  /** Systems whose agent does not start, and those that have none. */
  readonly brokenAgents = new Set<string>();
  readonly agentless = new Set<string>();

  record: AgentRecord | null = EMPTY_RECORD;
  /** How often the record was written. */
  writes = 0;
  history: HistoryEntry[] = [];
  stateLoss: PullError | null = null;
  /** What is wrong with the state directory though the record is there. */
  readonly stateAlarms: PullError[] = [];
  readonly files = new Map<string, unknown>();
  hold: HoldRead = { kind: "none" };
  confirmation: Confirmation | null = null;
  readonly locked = new Set<string>();
  readonly manifests = new Map<string, CachedManifest>();
  savedManifests: ReadonlyMap<string, CachedManifest> = new Map();
  spool: PendingReport | null = null;
  readonly reports: string[] = [];
  machineId: string | null = null;
  machine = "x86_64";
  /** What its agent understands of what releases require. */
  features: string[] = [];
  /** What the host is called now. */
  name = "web1";

  /** What `doctor` sees; what is not here is as it must be. */
  isRoot = true;
  hasUnits = true;
  nixVersion = "nix (Nix) 2.26.0";
  clockFacts: ClockFacts | null = { synchronised: true, service: true };
  readonly routes = new Map<string, Route>();
  readonly unitFacts = new Map<string, UnitFacts>();
  /** Files by path; null for one that is not there. */
  readonly lookedAt = new Map<string, FileFacts | null>();
  readonly unsafe = new Map<string, PullError>();
  readonly absent = new Set<string>();
  readonly mounts = new Map<string, MountFacts>([
    ["/boot", { mountPoint: "/boot", type: "vfat", readOnly: false, mountedReadOnly: false }],
  ]);
  space: FreeSpace = { free: 2_000, fileSystem: "1", total: 10_000 };

  /** When systemd ended the last service because it hung. */
  hungAt: Date | null = null;
  /** Whether systemd is told that the service lives. */
  isWatched = false;

  /** What the next fetches fail with, and how long each takes. */
  readonly fetchErrors: (PullError | null)[] = [];
  fetchMs = 0;
  /** Whether fetches that fail bring something that the next one goes on with. */
  fetchesAdvance = false;
  /** What the process that fetches told of it last. */
  toldProgress: ToldProgress | null = null;
  summary: FetchSummary = {
    ...{ paths: 10, newPaths: 3, bytesReceived: 1000 },
    ...{ deltasUsed: 0, deltasFailed: 0 },
  };
  /** By action and short name, such as `test 2`: how its next runs go. A run without one succeeds. */
  readonly switches = new Map<string, SwitchOutcome[]>();
  /** Messages of failing checks and hooks, by the check's name or the hook's program. */
  readonly failing = new Map<string, string>();
  /** What failing checks print, by the check's name. */
  readonly printed = new Map<string, readonly string[]>();
  /** Errors that calls throw once, by the call's beginning; it is not noted then. */
  readonly faults = new Map<string, PullError>();
  readonly hooks: HookRun[] = [];
  rebootSlot: "free" | "taken" | "refused" | "unreachable" | null = null;
  news: "none" | "commands" = "none";
  /** Who hears of errors that no call throws. */
  readonly strayListeners: ((error: PullError) => void)[] = [];

  constructor(config: object = {}) {
    this.settings = parseSettings(
      {
        ...{ mirrors: ["https://a.example.org/"], publicKeys: [KEY.publicKey.text] },
        health: { settle: "1s", interval: "1s", timeout: "10s" },
        ...config,
      },
      "web1",
    );
    this.mirrors = this.settings.mirrors.map((address) => new MemoryMirror(address, this.time));
    if (this.settings.reboot.fleetLock) this.rebootSlot = "free";
    this.tools = toolsOf(this);
  }

  /** Publishes a release on mirrors, all of them if none is named; gives its manifest. */
  publish(release: PublishedRelease, ...mirrors: readonly MemoryMirror[]): string {
    const { system: name, mode = "switch", entry, hosts, ...changes } = release;
    const manifest = sealManifest(
      sampleManifest({
        defaults: { activation: { mode } },
        hosts: hosts ?? { web1: sampleHost({ toplevel: system(name), ...entry }) },
        ...changes,
      }),
      KEY,
    );
    for (const mirror of mirrors.length > 0 ? mirrors : this.mirrors) mirror.put(manifest);
    return manifest;
  }

  /** What the profile points at. */
  get profile(): string | null {
    return this.generation === null ? null : (this.generations.get(this.generation) ?? null);
  }

  /** The events of the history, in order. */
  get events(): string[] {
    return this.history.map(({ event }) => event);
  }

  /** The lines of the log above `debug`, with their codes and short names of systems. */
  get logged(): string[] {
    return this.log.lines
      .filter(({ level }) => level !== "debug")
      .map(({ level, message, fields: { code } }) =>
        shortened(`${level}: ${typeof code === "string" ? `${code}: ` : ""}${message}`),
      );
  }

  /** Gives the calls since the last time, and forgets them. */
  takeCalls(): string[] {
    const calls = this.calls;
    this.calls = [];
    return calls;
  }

  /** Those of them from one on. */
  takeCallsFrom(first: string): string[] {
    const calls = this.takeCalls();
    const at = calls.indexOf(first);
    if (at < 0) throw new Error(`${first} is not among ${calls.join(", ")}`);
    return calls.slice(at);
  }

  /** The host goes down and comes up again, with what the boot loader starts or another system. */
  boot(chosen?: string): void {
    const toplevel = chosen ?? this.oneShot ?? this.bootDefault;
    this.oneShot = null;
    if (toplevel !== null && this.dead.has(toplevel)) {
      if (toplevel === this.bootDefault) throw new Error(`${toplevel} does not come up`);
      this.boot();
      return;
    }
    this.bootId = `boot ${Number(this.bootId.split(" ")[1]) + 1}`;
    this.booted = toplevel;
    this.running = toplevel;
    this.deadline = null;
  }

  /** Has the next run of an action, such as `test 2`, go like this. */
  nextSwitch(run: string, ...outcomes: readonly SwitchOutcome[]): void {
    this.switches.set(run, [...(this.switches.get(run) ?? []), ...outcomes]);
  }

  /** Has the next call that begins like this throw. */
  fault(call: string, code: ErrorCode, message: string = code): void {
    this.faults.set(call, new PullError(code, message));
  }

  /** Notes a call of the agent, or throws what the test wants it to. */
  call(text: string): void {
    const call = shortened(text);
    for (const [beginning, error] of this.faults) {
      if (!call.startsWith(beginning)) continue;
      this.faults.delete(beginning);
      throw error;
    }
    this.calls.push(call);
  }
}

/** Every port of the host. */
function toolsOf(host: MemoryHost): AgentTools {
  const { settings, log, time, mirrors } = host;
  return {
    ...{ settings, log, mirrors, clock: time, timers: time },
    random: () => 0.5,
    hostname: () => host.name,
    standings: new MirrorStandings(),
    offers: new VerifiedOffers(),
    closeConnections: async () => {
      host.calls.push("close connections");
    },
    watchdog: {
      start: () => {
        host.isWatched = true;
        return () => {
          host.isWatched = false;
        };
      },
      sign: () => undefined,
      beside: (work) => work(),
      takeHang: async () => {
        const { hungAt } = host;
        host.hungAt = null;
        return hungAt;
      },
    },
    strayErrors: {
      listen(listener) {
        host.strayListeners.push(listener);
        return () => host.strayListeners.splice(host.strayListeners.indexOf(listener), 1);
      },
    },
    machineId: async () => host.machineId,
    get machine() {
      return host.machine;
    },
    get features() {
      return host.features;
    },
    ownProgram: ["/bin/node", `${system("1")}/bin/nixos-pull`],
    isService: true,
    cache: cacheOf(host),
    closures: closuresOf(host),
    fetchSign: {
      tell: () => undefined,
      read: async () => host.toldProgress,
    },
    store: storeOf(host),
    repair: repairOf(host),
    roots: rootsOf(host),
    disk: { freeSpace: async () => host.space },
    boot: {
      needsReboot: async (toplevel) => kernelOf(host, toplevel) !== kernelOf(host, host.booted),
      async missingSpace(_, generations) {
        host.roomAskedFor = generations;
        return host.missingBootSpace;
      },
    },
    bootLoader: bootLoaderOf(host),
    activator: activatorOf(host),
    services: servicesOf(host),
    systems: {
      inhibitors: async () => null,
      name: async (toplevel) => host.names.get(toplevel) ?? null,
      specialisations: async (toplevel) => host.specialisations.get(toplevel) ?? new Map(),
      unitDefinition: async () => null,
    },
    deadline: {
      command: async (toplevel) => ["nixos-pull", "deadline", "--system", toplevel],
      async armForBoot(toplevel) {
        host.call(`arm boot deadline of ${toplevel}`);
        host.bootDeadline = toplevel;
      },
      async disarmForBoot() {
        host.call("disarm boot deadline");
        host.bootDeadline = null;
      },
    },
    successor: {
      look: async () => host.successor,
      async prove(toplevel) {
        host.call(`prove agent of ${toplevel}`);
        if (host.brokenAgents.has(toplevel)) {
          throw new PullError("HEALTH_FAILED", "the agent does not start");
        }
        return !host.agentless.has(toplevel);
      },
    },
    async probe({ name }) {
      host.call(`check ${name}`);
      const message = host.failing.get(name);
      if (message === undefined) return;
      throw new CheckFailure(`${name}: ${message}`, host.printed.get(name) ?? []);
    },
    async runHook(run) {
      const [program = ""] = run.command;
      host.call(`hook ${program}`);
      host.hooks.push(run);
      const message = host.failing.get(program);
      if (message !== undefined) throw new PullError("HOOK_FAILED", message);
    },
    examination: examinationOf(host),
    rebootLock: host.rebootSlot === null ? null : rebootLockOf(host),
    state: stateOf(host),
    history: historyOf(host),
    files: {
      read: async (name, schema) => {
        const read = schema.safeParse(host.files.get(name));
        return read.success ? read.data : null;
      },
      async write(name, value) {
        host.files.set(name, structuredClone(value));
      },
    },
    locks: {
      fileOf: (name) => `${settings.paths.state}/${name}.lock`,
      async take(name) {
        if (host.locked.has(name)) return null;
        host.locked.add(name);
        return async () => {
          host.locked.delete(name);
        };
      },
      holder: async (name) => (host.locked.has(name) ? 4242 : null),
    },
    commands: commandsOf(host),
    ...watchesOf(host),
    hostKey: async () => testKey("host-web1"),
    spool: {
      read: async () => host.spool,
      async write(pending) {
        host.spool = pending.targets.length > 0 ? pending : null;
      },
    },
    outlets: outletsOf(host),
  };
}

/** What `doctor` sees of the host: everything is as it must be, unless a test says otherwise. */
function examinationOf(host: MemoryHost): AgentTools["examination"] {
  return {
    get isRoot() {
      return host.isRoot;
    },
    async route(address) {
      return host.routes.get(address) ?? goodRoute(new URL(address).host, host.time.now());
    },
    tlsFiles: async () => undefined,
    credentialFile: ({ file, credential }) => file ?? `/run/credentials/${credential}`,
    clock: async () => host.clockFacts,
    units: async (names) =>
      host.hasUnits ? names.map((unit) => host.unitFacts.get(unit) ?? goodUnit(unit)) : null,
    file: async (path) => {
      const found = host.lookedAt.get(path);
      return found === undefined ? GOOD_DIRECTORY : found;
    },
    expectPrivate: async (directory) => {
      const unsafe = host.unsafe.get(directory);
      if (unsafe) throw unsafe;
      return !host.absent.has(directory);
    },
    mount: async (path) => host.mounts.get(path) ?? GOOD_MOUNT,
    fstab: async () => ["/", "/boot"],
    nixVersion: async () => host.nixVersion,
  };
}

const GOOD_DIRECTORY: FileFacts = {
  ...{ kind: "directory", mode: 0o700, uid: 0, size: 4_096, readable: true },
};
const GOOD_MOUNT: MountFacts = {
  ...{ mountPoint: "/", type: "ext4", readOnly: false, mountedReadOnly: false },
};

/** A unit that is as the NixOS module makes it. */
export function goodUnit(unit: string): UnitFacts {
  return {
    ...{ unit, load: "loaded", active: "active", sub: "running", file: "enabled" },
    ...{ result: "success", watchdog: "10min" },
  };
}

/** The way to a server that answers as it must. */
export function goodRoute(name: string, date: Date): Route {
  const certificate: ServerCertificate = {
    ...{ subject: name, issuer: "Some Authority", names: `DNS:${name}`, refusal: null },
    validFrom: new Date("2026-01-01T00:00:00Z"),
    validTo: new Date("2026-12-31T00:00:00Z"),
  };
  return {
    proxy: null,
    name: { kind: "done", value: ["192.0.2.1"], ms: 1 },
    connection: { kind: "done", value: "192.0.2.1", ms: 2 },
    certificate: { kind: "done", value: certificate, ms: 3 },
    answer: { kind: "done", value: { status: 200, date }, ms: 4 },
  };
}

function kernelOf({ kernels }: MemoryHost, toplevel: string | null): string {
  return kernels.get(toplevel ?? "") ?? "linux";
}

function cacheOf(host: MemoryHost): AgentTools["cache"] {
  const { manifests } = host;
  return {
    get: async (mirror, channel) => manifests.get(`${channel} ${mirror}`) ?? null,
    async put(mirror, channel, manifest) {
      manifests.set(`${channel} ${mirror}`, manifest);
    },
    async drop(mirror, channel) {
      manifests.delete(`${channel} ${mirror}`);
    },
    async save() {
      host.savedManifests = new Map(manifests);
    },
  };
}

function closuresOf(host: MemoryHost): ClosureFetch {
  return {
    async fetch(
      { toplevel, sequence },
      { signal, onArchiveRead, onAdvance, onCollected, verify = false },
    ) {
      host.call(`fetch ${toplevel}${verify ? ", all of it verified" : ""}`);
      await host.time.sleep(host.fetchMs, signal);
      if (host.collects) await onCollected?.(host.collects);
      const error = host.fetchErrors.shift() ?? null;
      const [mirror] = host.mirrors;
      if (mirror) onArchiveRead?.(mirror.address, error);
      if (error && host.fetchesAdvance) onAdvance?.();
      if (error) throw error;
      host.call(`fetched release ${sequence}`);
      if (verify) host.damaged.delete(toplevel);
      host.valid.add(toplevel);
      return host.summary;
    },
    async preview() {
      const error = host.fetchErrors.shift() ?? null;
      if (error) throw error;
      const { paths, newPaths } = host.summary;
      return {
        paths,
        newPaths,
        downloadBytes: 1_000,
        storeBytes: 3_000,
        collectsGarbage: false,
        packages: null,
      };
    },
    async repair({ toplevel }, { paths }, { onMended }) {
      host.call(`repair from ${toplevel}`);
      const error = host.fetchErrors.shift() ?? null;
      if (error) throw error;
      for (const path of paths.filter((it) => it === toplevel)) {
        const bad = host.badNars.get(path);
        if (bad) return [{ path, error: bad }];
        if (host.damaged.delete(path)) onMended?.(path, ["etc/file"]);
        host.valid.add(path);
      }
      return [];
    },
    async abandon() {
      host.call("abandon fetch");
    },
  };
}

/** A store in which a closure is its toplevel alone. */
function repairOf(host: MemoryHost): AgentTools["repair"] {
  return {
    closures: async (paths) => paths.filter((path) => host.valid.has(path)),
    absent: async () => [],
    async damaged(paths, { onVerified }) {
      host.call(`verify ${paths.join(" ")}${host.locked.has("update") ? ", locked" : ""}`);
      onVerified?.(paths.length);
      return paths.filter((path) => host.damaged.has(path));
    },
    registeredHashes: unexpected("registeredHashes"),
    mend: unexpected("mend"),
  };
}

function storeOf(host: MemoryHost): NixStore {
  return {
    access: async () => host.access,
    closureOf: unexpected("closureOf"),
    invalidPaths: async (paths) => paths.filter((path) => !host.valid.has(path)),
    importPaths: unexpected("importPaths"),
    flush: unexpected("flush"),
    removeDamaged: unexpected("removeDamaged"),
    collectGarbage: unexpected("collectGarbage"),
    async setProfile(toplevel) {
      host.call(`set profile ${toplevel}`);
      const last = Math.max(0, ...host.generations.keys());
      // As Nix does: no new generation if the last one is that already.
      const next = host.generations.get(last) === toplevel ? last : last + 1;
      host.generations.set(next, toplevel);
      host.generation = next;
    },
    async restoreProfile(generation) {
      host.call(`restore generation ${generation}`);
      if (generation !== null && !host.generations.has(generation)) {
        throw new PullError("PROFILE_FAILED", `generation ${generation} does not exist`);
      }
      host.generation = generation;
    },
    profileToplevel: async () => host.profile,
    profileGeneration: async () => host.generation,
    async findGeneration(number, isPassedOver = () => false) {
      const current = host.generation ?? 0;
      const before = [...host.generations].filter(
        ([it, toplevel]) => it < current && !isPassedOver(toplevel),
      );
      const wanted = number ?? before.at(-1)?.[0];
      const toplevel = host.generations.get(wanted ?? 0);
      return wanted === undefined || toplevel === undefined
        ? null
        : { generation: wanted, toplevel };
    },
    async pruneGenerations(keep, spared = null) {
      host.call(`prune generations to ${keep}${spared === null ? "" : ` and ${spared}`}`);
    },
    async splitGenerations(keep, spared = null) {
      const numbers = [...host.generations.keys()].sort((a, b) => b - a);
      const kept = [...numbers.slice(0, keep), host.generation, spared];
      const [staying, leaving]: [string[], string[]] = [[], []];
      for (const [number, toplevel] of host.generations) {
        (kept.includes(number) ? staying : leaving).push(toplevel);
      }
      return { staying, leaving };
    },
    async forgetNewer(toplevel, since = host.generation ?? 0) {
      for (const [number, other] of host.generations) {
        if (other !== toplevel || number <= since || number === host.generation) continue;
        host.call(`delete generation ${number}`);
        host.generations.delete(number);
      }
    },
    runningToplevel: async () => host.running,
    bootedToplevel: async () => host.booted,
    realPath: (storePath) => storePath,
  };
}

/** A part of a port that belongs to the fetch, which has a port of its own here. */
function unexpected(name: string): () => Promise<never> {
  return () => Promise.reject(new Error(`${name} is the fetch's`));
}

function rootsOf(host: MemoryHost): AgentTools["roots"] {
  return {
    async hold(name, storePath) {
      host.call(`hold ${name} ${storePath}`);
      host.roots.set(name, storePath);
    },
    holdAlso: unexpected("holdAlso"),
    async release(name) {
      if (host.roots.delete(name)) host.call(`release ${name}`);
    },
    held: async (name) => host.roots.get(name) ?? null,
    heldBelow: async () => [],
  };
}

function bootLoaderOf(host: MemoryHost): BootLoader {
  return {
    look: async () => ({ name: "loader", cannotTry: host.cannotTry }),
    async tryOnce({ toplevel, proven }) {
      host.call(`try once ${toplevel}`);
      if (host.bootDefault !== proven) return `${proven} is not the default`;
      if (![...host.generations.values()].includes(toplevel)) return `no entry for ${toplevel}`;
      host.oneShot = toplevel;
      return null;
    },
    isTrialPending: async () => host.oneShot !== null,
    async cancelTrial() {
      if (host.oneShot !== null) host.call("cancel trial");
      host.oneShot = null;
    },
    kernelPlace: async () => ({ directory: "/boot", removesFirst: false }),
  };
}

function activatorOf(host: MemoryHost): AgentTools["activator"] {
  return {
    canActivate: async (toplevel) => !host.unswitchable.has(toplevel),
    hasCheck: async (toplevel) => host.checking.has(toplevel),
    async activate(toplevel, action) {
      const run = shortened(`${action} ${toplevel}`);
      host.call(run);
      const outcome = host.switches.get(run)?.shift() ?? { exitCode: 0 };
      const { exitCode, timedOut = false, lines = [`${run} ran`] } = outcome;
      outcome.meanwhile?.();
      const { moves = SWITCHES.includes(exitCode ?? -1) } = outcome;
      if (moves && (action === "switch" || action === "test")) {
        host.running = toplevel;
      }
      if (INSTALLS.includes(exitCode ?? -1) && (action === "switch" || action === "boot")) {
        host.bootDefault = toplevel;
      }
      const { lockHeld = exitCode === 11 } = outcome;
      const facts = { ...NO_FACTS, lockRefused: exitCode === 11, ...outcome.facts };
      return { exitCode, timedOut, lockHeld, facts, lastLines: lines };
    },
  };
}

function servicesOf(host: MemoryHost): ServiceManager {
  const noted = (text: string) => async (): Promise<void> => {
    host.call(text);
  };
  return {
    bootId: async () => host.bootId,
    unitTroubles: async () => host.units,
    activeUnits: async () => (host.units ? [] : null),
    unitStates: async () => [],
    startUnits: async (units) => {
      host.call(`start units ${units.join(" ")}`);
    },
    async armDeadline(seconds, command) {
      host.call(`arm deadline in ${seconds} s: ${command.join(" ")}`);
      host.deadline = command;
    },
    async disarmDeadline() {
      if (host.deadline !== null) host.call("disarm deadline");
      host.deadline = null;
    },
    stopAgent: noted("stop agent"),
    startAgent: noted("start agent"),
    restartAgent: noted("restart agent"),
    canReboot: true,
    failedInBoot: async () => host.failedInBoot,
    rebootBlockers: async ({ users }) => [
      ...host.inhibitors,
      ...(users ? host.users.map((user) => `user ${user}`) : []),
    ],
    warnUsers: async (message) => {
      host.warnings.push(message);
    },
    reboot: async ({ force }) => {
      host.call("reboot");
      host.forced = force;
    },
  };
}

function rebootLockOf(host: MemoryHost): AgentTools["rebootLock"] {
  return {
    async take() {
      host.call("take reboot slot");
      if (host.rebootSlot === "refused") throw new PullError("REBOOT_REFUSED", "no slot is free");
      host.rebootSlot = "taken";
    },
    async release() {
      host.call("give reboot slot back");
      if (host.rebootSlot === "unreachable") throw new PullError("MIRROR_UNREACHABLE", "gone");
      host.rebootSlot = "free";
    },
  };
}

function stateOf(host: MemoryHost): AgentTools["state"] {
  return {
    prepare: async () => undefined,
    removeUnfinished: async () => undefined,
    recall: async () => ({
      record: host.stateLoss ? null : host.record,
      alarms: host.stateLoss ? [host.stateLoss] : host.stateAlarms,
    }),
    async load({ acceptLoss = false } = {}) {
      if (host.stateLoss && !acceptLoss) throw host.stateLoss;
      return host.stateLoss ? EMPTY_RECORD : (host.record ?? EMPTY_RECORD);
    },
    async mend(record) {
      if (host.stateLoss) host.record = record;
      host.stateLoss = null;
    },
    async save(record) {
      const { name } = record.state;
      if (host.record?.state.name !== name) host.calls.push(`[${name}]`);
      // As it comes back from the disk: a record that no agent could read again fails here.
      host.record = recordSchema.parse(JSON.parse(JSON.stringify(record)));
      return ++host.writes;
    },
  };
}

function historyOf(host: MemoryHost): AgentTools["history"] {
  return {
    // Which write of the record came before is the disk's business.
    async append({ writes: _, ...entry }) {
      host.history.push(entry);
    },
    read: async () => host.history,
    findLast: async (event) => host.history.findLast((entry) => entry.event === event) ?? null,
    async *newestFirst() {
      yield* [...host.history].reverse();
    },
    exists: async () => host.history.length > 0,
  };
}

function commandsOf(host: MemoryHost): AgentTools["commands"] {
  return {
    readHold: async () => host.hold,
    async hold(hold) {
      host.hold = { kind: "held", hold };
    },
    async unhold() {
      const { kind } = host.hold;
      host.hold = { kind: "none" };
      return kind !== "none";
    },
    readConfirmation: async () => host.confirmation,
    async confirm(confirmation) {
      host.confirmation = confirmation;
    },
  };
}

function watchesOf(host: MemoryHost): Pick<AgentTools, "sticks" | "commandsWatch"> {
  return {
    sticks: { isIdle: true, look: async () => [] },
    commandsWatch: {
      look: async () => undefined,
      async untilNews(signal) {
        if (host.news === "commands") {
          host.news = "none";
          return true;
        }
        await host.time.sleep(Infinity, signal).catch(() => undefined);
        return false;
      },
    },
  };
}

function outletsOf(host: MemoryHost): ReportOutlets {
  const close = async (): Promise<void> => undefined;
  return {
    async deliver(target, envelope) {
      host.call(`deliver report to ${target}`);
      host.reports.push(envelope);
    },
    async leaveOnStick(address, envelope) {
      host.call(`leave report on ${address}`);
      host.reports.push(envelope);
    },
    async writeMetrics(path) {
      host.call(`write metrics to ${path}`);
    },
    async serveMetrics(address) {
      host.call(`serve metrics at ${address}`);
      return close;
    },
    async serveStatus({ path }) {
      host.call(`serve status at ${path}`);
      return close;
    },
  };
}

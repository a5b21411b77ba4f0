import { PullError } from "../../agent/core/errors.ts";
import type { ActivationMode } from "../../agent/core/formats/manifest.ts";
import type { NixStore, SwitchAction } from "../../agent/core/ports.ts";
import { NO_FACTS, type SwitchFacts } from "../../agent/core/update/switch-output.ts";
import { EMPTY_RECORD, type AgentRecord } from "../../agent/core/update/record.ts";
import type { AgentTools } from "../../agent/host/agent-tools.ts";
import { passDeadline } from "../../agent/host/pass-deadline.ts";
import { rollBackByHand } from "../../agent/host/roll-back.ts";
import { tick } from "../../agent/host/tick.ts";
import { MemoryHost, shortened, system } from "./memory-host.ts";

/** What a system is like: whether it works, and whether only a boot brings all of it. */
export type Nature =
  | "good"
  /** Its units fail. */
  | "sick"
  /** It has another kernel, and works. */
  | "goodKernel"
  /** It has another kernel, and its units fail. */
  | "sickKernel"
  /** Its kernel never comes up. */
  | "deadKernel";

/** A release of the exploration. */
export interface ExploredRelease {
  /** The short name of its system. */
  readonly system: string;
  readonly nature: Nature;
  readonly mode: ActivationMode;
}

/** The system that a person makes by hand, and the one that is there from the beginning. */
export const BY_HAND = "h";
export const FIRST = "1";

/** All that a host is at one moment, as plain data: what a crash leaves. */
export interface World {
  /** How many of the releases are published, in their order. */
  readonly published: number;
  readonly generations: readonly (readonly [number, string])[];
  readonly generation: number | null;
  readonly running: string | null;
  readonly booted: string | null;
  readonly bootDefault: string | null;
  readonly oneShot: string | null;
  readonly valid: readonly string[];
  readonly roots: readonly (readonly [string, string])[];
  /** The systems whose deadlines are armed, in this boot and for the next. */
  readonly deadline: string | null;
  readonly bootDeadline: string | null;
  /** Whether the agent asked for a reboot that did not come yet. */
  readonly rebooting: boolean;
  readonly record: AgentRecord;
  /** Systems that are known to work: the first, those of a person, and those that were judged. */
  readonly proven: readonly string[];
}

/** What can happen to a host. The agent itself may end after each of its effects. */
export type Action =
  /** The service polls, or a person says `apply --again`. */
  | "tick"
  | "again"
  /** A deadline passes. */
  | "deadline"
  | "bootDeadline"
  /** A power cut, a reset or a reboot. */
  | "reboot"
  /** The next release is published. */
  | "publish"
  /** `nixos-pull rollback`. */
  | "rollback"
  /** `nixos-rebuild switch`, and `nixos-rebuild test`. */
  | "handSwitch"
  | "handTest"
  /** `nix-collect-garbage -d`. */
  | "collectGarbage"
  /** The time of the next attempt comes. */
  | "wait";

/** One run of something that the outside world decides; the first outcome is the usual one. */
export type Choose = (outcomes: readonly string[]) => string;

/** What an action leads to. */
export interface Outcome {
  /** The host after the action. */
  readonly after: World;
  /** The host after each effect within it: what a crash there leaves. */
  readonly crashes: readonly World[];
  /** What must not be, in words. */
  readonly violations: readonly string[];
}

const NOW = "2026-02-01T00:00:00.000Z";
const LATER = "2026-02-02T00:00:00.000Z";

/** A host that runs the first system, with the first release published. */
export function firstWorld(): World {
  const one = system(FIRST);
  return {
    published: 1,
    ...{ generations: [[1, one]], generation: 1, running: one, booted: one, bootDefault: one },
    ...{ oneShot: null, valid: [one, system(BY_HAND)], roots: [], deadline: null },
    ...{ bootDeadline: null, rebooting: false, record: EMPTY_RECORD, proven: [one] },
  };
}

/** Whether something can happen to a host in this world. */
export function isPossible(action: Action, world: World, releases: number): boolean {
  switch (action) {
    case "publish":
      return world.published < releases;
    case "deadline":
      return world.deadline !== null;
    case "bootDeadline":
      return world.bootDeadline !== null;
    case "wait":
      return world.record.state.name === "Failed" && world.record.state.retryAt === LATER;
    default:
      return true;
  }
}

const CONFIG = {
  // One look and two attempts: more would only repeat what is known.
  health: { settle: "0s", interval: "10s", timeout: "5s" },
  activation: { attempts: 2 },
  reboot: { policy: "now", grace: "0s" },
  log: { level: "error" },
};

/** How runs of switch-to-configuration can end; the first is the usual one. */
const ENDS: Readonly<Record<SwitchAction, readonly string[]>> = {
  test: ["done", "activationFailed", "locked", "unavailable", "killedBefore", "killedAfter"],
  switch: ["done", "locked", "killedBefore", "killedAfter"],
  boot: ["done", "bootLoaderFailed", "killedBefore"],
  "dry-activate": ["done"],
  check: ["done"],
};

const EXITS: Readonly<Record<string, { exitCode: number | null; facts?: Partial<SwitchFacts> }>> = {
  done: { exitCode: 0 },
  activationFailed: { exitCode: 2, facts: { begun: true, activationScriptFailed: true } },
  locked: { exitCode: 11, facts: { lockRefused: true } },
  unavailable: { exitCode: 11, facts: { begun: true } },
  killedBefore: { exitCode: null, facts: { begun: true } },
  killedAfter: { exitCode: null, facts: { begun: true } },
  bootLoaderFailed: { exitCode: 1, facts: { begun: true, bootLoaderFailed: true } },
};

/** Ends after which the system runs, or is the boot default, although not all is well. */
const REACHED: readonly string[] = ["done", "activationFailed", "unavailable", "killedAfter"];

/** A generation that was deleted. */
const GONE = 99;

/** What of a world lies in the fields of a host by the same names. */
const PLAIN = [
  "generation",
  "running",
  "booted",
  "bootDefault",
  "oneShot",
  "bootDeadline",
] as const;

/** Manifests by their position: each is sealed once. */
const sealed = new Map<ExploredRelease, string>();

/** A host in memory that notes what it is before each of its effects. */
class ExploredHost extends MemoryHost {
  readonly crashes: World[] = [];
  readonly violations: string[] = [];
  readonly releases: readonly ExploredRelease[];
  readonly choose: Choose;
  readonly proven: Set<string>;
  readonly published: number;
  rebooting: boolean;
  #last: { of: unknown; bootId: string; numbers: string; record: AgentRecord } | null = null;
  /** What ran when the agent started: the agent of another system takes over from it. */
  readonly ranAtStart: string | null;

  constructor(world: World, releases: readonly ExploredRelease[], choose: Choose) {
    super(CONFIG);
    this.releases = releases;
    this.choose = choose;
    this.published = world.published;
    this.rebooting = world.rebooting;
    this.proven = new Set(world.proven);
    for (const name of PLAIN) Object.assign(this, { [name]: world[name] });
    this.ranAtStart = world.running;
    this.record = structuredClone(world.record);
    this.generations.clear();
    for (const [number, toplevel] of world.generations) this.generations.set(number, toplevel);
    this.valid.clear();
    for (const path of world.valid) this.valid.add(path);
    for (const [name, path] of world.roots) this.roots.set(name, path);
    this.deadline = world.deadline === null ? null : [world.deadline];
    this.bootId = "now";
    this.cannotTry = null;
    for (const { system: name, nature } of releases) {
      if (nature.endsWith("Kernel")) this.kernels.set(system(name), name);
      if (nature === "deadKernel") this.dead.add(system(name));
    }
    const release = releases[world.published - 1];
    if (!release) return;
    const manifest =
      sealed.get(release) ??
      this.publish({ sequence: world.published, system: release.system, mode: release.mode });
    sealed.set(release, manifest);
    for (const mirror of this.mirrors) mirror.put(manifest);
  }

  /** Whether the units of the running system fail. */
  get isSick(): boolean {
    const release = this.releases.find((it) => system(it.system) === this.running);
    return release?.nature.startsWith("sick") ?? false;
  }

  override call(text: string): void {
    this.note();
    super.call(text);
  }

  /** The agent may end here. */
  note(): void {
    const world = this.world();
    const last = this.crashes.at(-1);
    if (last === undefined || keyOf(last) !== keyOf(world)) this.crashes.push(world);
  }

  /** What this host is now. Two hosts that behave alike give the same. */
  world(): World {
    const order = [...this.generations.keys()].sort((a, b) => a - b);
    const renumber = (number: number | null): number | null =>
      number === null ? null : order.includes(number) ? order.indexOf(number) + 1 : GONE;
    return {
      published: this.published,
      generations: order.map((it, at) => [at + 1, this.generations.get(it) ?? ""]),
      generation: renumber(this.generation),
      running: this.running,
      booted: this.booted,
      bootDefault: this.bootDefault,
      oneShot: this.oneShot,
      valid: [...this.valid].sort(),
      roots: [...this.roots].sort(([a], [b]) => (a < b ? -1 : 1)),
      deadline: this.deadline?.at(-1) ?? null,
      bootDeadline: this.bootDeadline,
      rebooting: this.rebooting,
      record: this.#canonicalRecord(order, renumber),
      proven: [...this.proven].sort(),
    };
  }

  /** The record of `canonical`, made anew only if something changed. */
  #canonicalRecord(
    order: readonly number[],
    renumber: (number: number | null) => number | null,
  ): AgentRecord {
    const { record, bootId } = this;
    const numbers = order.join();
    const last = this.#last;
    if (last?.of === record && last.bootId === bootId && last.numbers === numbers)
      return last.record;
    const made = canonical(this, renumber);
    this.#last = { of: record, bootId, numbers, record: made };
    return made;
  }

  violation(words: string): void {
    this.violations.push(shortened(words));
  }
}

const recordTexts = new WeakMap<AgentRecord, string>();

/** A text that is the same for equal worlds. */
export function keyOf({ record, ...others }: World): string {
  const known = recordTexts.get(record);
  const text = known ?? JSON.stringify(record);
  if (known === undefined) recordTexts.set(record, text);
  return `${JSON.stringify(others)}${text}`;
}

/** The record without what makes no difference: times, except whether they are past, and words. */
function canonical(
  host: ExploredHost,
  renumber: (number: number | null) => number | null,
): AgentRecord {
  const { record, bootId, time } = host;
  const text = JSON.stringify(record ?? EMPTY_RECORD, (key, value: unknown) => {
    switch (key) {
      case "at":
        return NOW;
      case "message":
        return "";
      case "retryAt":
        return Date.parse(String(value)) > time.now().getTime() ? LATER : NOW;
      case "bootId":
        return value === bootId ? "now" : "earlier";
      case "generation":
        return renumber(value as number | null);
      default:
        return value;
    }
  });
  return JSON.parse(text) as AgentRecord;
}

/** The ports of a host whose outside world is decided by choices. */
function toolsOf(host: ExploredHost): AgentTools {
  const { tools } = host;
  return {
    ...tools,
    mirrors: tools.mirrors.map((mirror) => ({
      ...{ address: mirror.address, ranges: true },
      readArchive: () => mirror.readArchive("", { from: 0, to: 0 }),
      readRelease: (channel, digest) => mirror.readRelease(channel, digest),
      async readManifest(channel, options) {
        if (host.choose(["up", "down"]) === "down") throw new PullError("MIRROR_STATUS", "503");
        const read = await mirror.readManifest(channel, options);
        // The last look of the health gate.
        const isJudged = host.record?.state.name === "Verifying" && !host.isSick;
        if (isJudged && host.running !== null) host.proven.add(host.running);
        return read;
      },
    })),
    closures: {
      ...tools.closures,
      async fetch(release, options) {
        if (host.choose(["done", "failed"]) === "failed") host.fault("fetched", "IMPORT_FAILED");
        return tools.closures.fetch(release, options);
      },
    },
    store: storeOf(host),
    activator: activatorOf(host),
    services: {
      ...tools.services,
      unitTroubles: async () => ({
        failed: host.isSick ? [`${shortened(host.running ?? "")}.service`] : [],
        restarts: new Map(),
      }),
      async reboot() {
        host.call("reboot");
        host.rebooting = true;
      },
    },
    successor: {
      ...tools.successor,
      look: async () => ({ differs: host.running !== host.ranAtStart, hasUnit: true }),
    },
    state: {
      ...tools.state,
      async save(record) {
        host.note();
        const saved = await tools.state.save(record);
        host.note();
        return saved;
      },
    },
  };
}

/** The store and the profile, as Nix keeps them. */
function storeOf(host: ExploredHost): NixStore {
  const { store } = host.tools;
  return {
    ...store,
    async setProfile(toplevel) {
      if (!host.valid.has(toplevel)) throw new PullError("PROFILE_FAILED", "not valid");
      host.call(`set profile ${toplevel}`);
      host.generation = withGeneration(host, toplevel);
    },
  };
}

/** The generation of a system that the profile gets; the newest, if that is the same. */
function withGeneration(host: ExploredHost, toplevel: string): number {
  const newest = Math.max(0, ...host.generations.keys());
  if (host.generations.get(newest) === toplevel) return newest;
  host.generations.set(newest + 1, toplevel);
  return newest + 1;
}

/** Runs of switch-to-configuration that end in every way. */
function activatorOf(host: ExploredHost): AgentTools["activator"] {
  return {
    ...host.tools.activator,
    async activate(toplevel, action) {
      if (!host.valid.has(toplevel)) {
        host.violation(`${action} ${toplevel}: it is not in the store any more`);
      }
      const end = host.choose(ENDS[action]);
      host.call(`${action} ${toplevel}`);
      const isReached = REACHED.includes(end);
      if (isReached && (action === "test" || action === "switch")) host.running = toplevel;
      if (isReached && (action === "boot" || action === "switch")) host.bootDefault = toplevel;
      host.note();
      const { exitCode, facts } = EXITS[end] ?? { exitCode: 1, facts: {} };
      return {
        ...{ exitCode, timedOut: false, lockHeld: end === "locked", lastLines: [] },
        facts: { ...NO_FACTS, ...facts },
      };
    },
  };
}

/** Lets one thing happen to a host. `choose` decides what the outside world answers. */
export async function act(
  action: Action,
  world: World,
  releases: readonly ExploredRelease[],
  choose: Choose,
): Promise<Outcome> {
  const published = action === "publish" ? world.published + 1 : world.published;
  const host = new ExploredHost({ ...world, published }, releases, choose);
  const agentRuns = await perform(action, host);
  const after = host.world();
  const crashes = agentRuns ? host.crashes : [];
  for (const moment of [...crashes, after]) host.violations.push(...wrongWith(moment));
  if (agentRuns) host.violations.push(...wrongAtRest(after));
  return { after, crashes, violations: [...new Set(host.violations)] };
}

/** Performs an action; gives whether the agent ran in it. */
async function perform(action: Action, host: ExploredHost): Promise<boolean> {
  const tools = toolsOf(host);
  switch (action) {
    case "tick":
      await expected(tick(tools, { insistence: "patient" }));
      return true;
    case "again":
      await expected(tick(tools, { insistence: "again" }));
      return true;
    case "deadline":
    case "bootDeadline": {
      const toplevel = action === "deadline" ? host.deadline?.at(-1) : host.bootDeadline;
      if (action === "deadline") host.deadline = null;
      await expected(passDeadline(tools, toplevel ?? ""));
      return true;
    }
    case "rollback":
      await expected(rollBackByHand(tools, null));
      return true;
    case "reboot":
      host.rebooting = false;
      try {
        host.boot();
      } catch (error) {
        host.violation(String(error));
      }
      return false;
    case "handSwitch":
      host.proven.add(system(BY_HAND));
      host.generation = withGeneration(host, system(BY_HAND));
      host.running = system(BY_HAND);
      host.bootDefault = host.running;
      return false;
    case "handTest":
      host.proven.add(system(BY_HAND));
      host.running = system(BY_HAND);
      return false;
    case "collectGarbage":
      for (const number of host.generations.keys()) {
        if (number !== host.generation) host.generations.delete(number);
      }
      for (const path of host.valid) {
        if (!heldIn(host.world()).has(path)) host.valid.delete(path);
      }
      return false;
    case "wait":
      if (host.record?.state.name === "Failed") {
        host.record = { ...host.record, state: { ...host.record.state, retryAt: NOW } };
      }
      return false;
    case "publish":
      return false;
    default:
      return action satisfies never;
  }
}

/** An action may fail by an error that has a code; any other is a defect. */
async function expected(work: Promise<unknown>): Promise<void> {
  await work.catch((error: unknown) => {
    if (!(error instanceof PullError) || error.code === "INTERNAL") throw error;
  });
}

/** What the garbage collector leaves. A person's own configuration is always at hand. */
function heldIn(world: World): Set<string> {
  const { running, booted, roots, generations } = world;
  const held = [running, booted, ...roots.map(([, path]) => path), system(BY_HAND)];
  return new Set([...held.filter((it) => it !== null), ...generations.map(([, path]) => path)]);
}

/** What must not be at any moment, be it between two effects. */
export function wrongWith(world: World): string[] {
  const { bootDefault, proven, record, generations, generation } = world;
  const wrong: string[] = [];
  if (bootDefault === null || !proven.includes(bootDefault)) {
    wrong.push(`the boot default, ${bootDefault}, is not proven`);
  }
  const committed = record.committed?.toplevel;
  if (committed !== undefined && !proven.includes(committed)) {
    wrong.push(`${committed} is committed and not proven`);
  }
  // What `nix-collect-garbage -d` leaves now.
  const kept = generations.filter(([number]) => number === generation);
  const held = heldIn({ ...world, generations: kept });
  if (bootDefault !== null && !held.has(bootDefault)) {
    wrong.push(`nothing holds the boot default, ${bootDefault}`);
  }
  const { state } = record;
  if ("baseline" in state && state.name !== "Committed" && state.name !== "RolledBack") {
    // The boot of a trial ends what runs, and any other boot starts the profile.
    const running = state.name === "Armed" ? null : state.baseline.running;
    for (const path of [state.baseline.profile, running]) {
      if (path !== null && !held.has(path)) {
        wrong.push(`in ${state.name} nothing holds the way back to ${path}`);
      }
    }
  }
  return wrong.map(shortened);
}

/** What must not be once the agent has done what it could. */
function wrongAtRest({ record, running, proven, rebooting, deadline }: World): string[] {
  const isAtRest = record.state.name === "Idle" || record.state.name === "Failed";
  if (!isAtRest || record.pendingReboot !== null || rebooting) return [];
  const wrong: string[] = [];
  if (running === null || !proven.includes(running)) {
    wrong.push(`at rest, and ${running} runs, which is not proven`);
  }
  if (deadline !== null) wrong.push("at rest, and a deadline is armed");
  return wrong.map(shortened);
}

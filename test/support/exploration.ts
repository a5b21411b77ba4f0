import {
  act,
  firstWorld,
  isPossible,
  keyOf,
  type Action,
  type Choose,
  type ExploredRelease,
  type Outcome,
  type World,
} from "./explored-host.ts";
import { shortened, system } from "./memory-host.ts";

/** Everything that can happen between two runs of the agent, and its runs. */
const ACTIONS: readonly Action[] = [
  "tick",
  "again",
  "deadline",
  "bootDeadline",
  "reboot",
  "publish",
  "rollback",
  "handSwitch",
  "handTest",
  "collectGarbage",
  "wait",
];

/** What is published after the first release. */
const NEXT: ExploredRelease = { system: "3", nature: "good", mode: "switch" };

/** The release that a host must always be able to reach. */
const LAST: ExploredRelease = { system: "9", nature: "good", mode: "switch" };

/** The releases that a host may find first. */
export const FIRST_RELEASES: readonly Omit<ExploredRelease, "system">[] = [
  { nature: "good", mode: "switch" },
  { nature: "sick", mode: "switch" },
  { nature: "good", mode: "boot" },
  { nature: "sick", mode: "boot" },
  { nature: "good", mode: "test" },
  { nature: "sick", mode: "test" },
  { nature: "goodKernel", mode: "switch" },
  { nature: "goodKernel", mode: "boot" },
  { nature: "sickKernel", mode: "boot" },
  { nature: "deadKernel", mode: "switch" },
  { nature: "deadKernel", mode: "boot" },
];

/** What an exploration found. */
export interface Exploration {
  readonly states: number;
  readonly transitions: number;
  readonly violations: readonly Violation[];
}

/** Something that must not be, and the shortest way there. */
export interface Violation {
  readonly words: string;
  readonly path: readonly string[];
}

interface Node {
  readonly world: World;
  readonly path: readonly string[];
}

/**
 * Breadth first over everything that can happen to a host that finds this release, `depth`
 * actions deep: the agent may end after each of its effects, and one answer of the outside world
 * in each action is an unusual one. Nothing is sampled, and each state is looked at once.
 */
export async function explore(
  first: Omit<ExploredRelease, "system">,
  depth: number,
): Promise<Exploration> {
  return new Explorer([{ system: "2", ...first }, NEXT, LAST]).explore(depth);
}

class Explorer {
  readonly #releases: readonly ExploredRelease[];
  readonly #known = new Set<string>();
  readonly #arriving = new Set<string>();
  readonly #violations = new Map<string, Violation>();
  #transitions = 0;

  constructor(releases: readonly ExploredRelease[]) {
    this.#releases = releases;
  }

  async explore(depth: number): Promise<Exploration> {
    let layer: Node[] = [];
    for (const world of await this.#beginnings()) {
      if (this.#isNew(world)) layer.push({ world, path: [`after ${layer.length} releases`] });
    }
    for (let at = 0; at < depth; at++) {
      const next: Node[] = [];
      for (const node of layer) next.push(...(await this.#expand(node)));
      layer = next;
      for (const node of layer) await this.#arrive(node);
    }
    return {
      states: this.#known.size,
      transitions: this.#transitions,
      violations: [...this.#violations.values()],
    };
  }

  /** The host before the first release, once that is over, and once the next one is over. */
  async #beginnings(): Promise<World[]> {
    const before = firstWorld();
    const after = await this.#settle(before);
    return [before, after, await this.#settle({ ...after, published: 2 })];
  }

  /** The host once the agent has done all it can about the newest release. */
  async #settle(world: World): Promise<World> {
    let now = world;
    for (let step = 0; step < MAX_STEPS; step++) {
      const { after } = await act(nextOf(now), now, this.#releases, usual);
      if (keyOf(after) === keyOf(now)) break;
      now = after;
    }
    return now;
  }

  /** Everything new that one action leads to. */
  async #expand({ world, path }: Node): Promise<Node[]> {
    const found: Node[] = [];
    const actions: readonly Action[] = world.rebooting ? ["reboot"] : ACTIONS;
    for (const action of actions) {
      if (!isPossible(action, world, this.#releases.length - 1)) continue;
      for (const { outcome, choice } of await everyOutcome(action, world, this.#releases)) {
        const step = choice === null ? action : `${action} (${choice})`;
        this.#transitions += 1 + outcome.crashes.length;
        for (const words of outcome.violations) this.#violate(words, [...path, step]);
        for (const [at, crash] of outcome.crashes.entries()) {
          if (this.#isNew(crash))
            found.push({
              world: crash,
              path: [...path, `${step} ended at ${at}`, describe(crash)],
            });
        }
        if (this.#isNew(outcome.after))
          found.push({ world: outcome.after, path: [...path, step, describe(outcome.after)] });
      }
    }
    return found;
  }

  #isNew(world: World): boolean {
    const key = keyOf(world);
    if (this.#known.has(key)) return false;
    this.#known.add(key);
    return true;
  }

  #violate(words: string, path: readonly string[]): void {
    if (!this.#violations.has(words)) this.#violations.set(words, { words, path });
  }

  /** Whether the host comes to rest, and gets to the last release, if the world lets it. */
  async #arrive({ world, path }: Node): Promise<void> {
    await this.#reach({ world, path }, isAtRest, "it does not come to rest");
    const last = { ...world, published: this.#releases.length };
    await this.#reach({ world: last, path }, hasArrived, "the last release is not reached");
  }

  async #reach(
    { world, path }: Node,
    isThere: (world: World) => boolean,
    otherwise: string,
  ): Promise<void> {
    const seen: string[] = [];
    let now = world;
    for (let step = 0; step < MAX_STEPS; step++) {
      const key = keyOf(now);
      if (this.#arriving.has(key) || isThere(now)) {
        for (const it of seen) this.#arriving.add(it);
        return;
      }
      if (seen.includes(key)) break;
      seen.push(key);
      const outcome = await act(nextOf(now), now, this.#releases, usual);
      for (const words of outcome.violations) this.#violate(words, [...path, "and then on"]);
      now = outcome.after;
    }
    this.#violate(`${otherwise}, but ends in ${now.record.state.name}`, path);
  }
}

const MAX_STEPS = 40;

/** What comes next if nothing is in the way. */
function nextOf(world: World): Action {
  if (world.rebooting) return "reboot";
  return isPossible("wait", world, 0) ? "wait" : "tick";
}

/** Whether the agent has nothing more to do, but for a poll. */
function isAtRest({ record, rebooting }: World): boolean {
  return (record.state.name === "Idle" || record.state.name === "Failed") && !rebooting;
}

function hasArrived({ record, running, bootDefault }: World): boolean {
  const last = system(LAST.system);
  return (
    record.state.name === "Idle" &&
    record.committed?.toplevel === last &&
    running === last &&
    bootDefault === last
  );
}

const usual: Choose = ([first = ""]) => first;

/** An action with the usual answers of the outside world, and with each one unusual answer. */
async function everyOutcome(
  action: Action,
  world: World,
  releases: readonly ExploredRelease[],
): Promise<{ outcome: Outcome; choice: string | null }[]> {
  const asked: (readonly string[])[] = [];
  const outcome = await act(action, world, releases, (outcomes) => {
    asked.push(outcomes);
    return usual(outcomes);
  });
  const all: { outcome: Outcome; choice: string | null }[] = [{ outcome, choice: null }];
  for (const [at, outcomes] of asked.entries()) {
    for (const unusual of outcomes.slice(1)) {
      let now = 0;
      const other = await act(action, world, releases, (these) =>
        now++ === at ? unusual : usual(these),
      );
      all.push({ outcome: other, choice: `${unusual} at ${at}` });
    }
  }
  return all;
}

/** What decides what comes next, in short, for a reader of a path. */
function describe({ record, generation, generations, ...world }: World): string {
  const { state, committed, pendingReboot } = record;
  const { running, booted, bootDefault, oneShot } = world;
  const parts = {
    ...{ running, booted, bootDefault, oneShot, generations, generation },
    committed: committed?.toplevel,
    pending: pendingReboot?.release.toplevel,
  };
  return shortened(`${state.name} ${JSON.stringify(parts)}`);
}

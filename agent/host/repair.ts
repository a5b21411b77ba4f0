import { PullError, toPullError } from "../core/errors.ts";
import { releaseFor, type Release } from "../core/formats/manifest.ts";
import type { MendListener } from "../core/ports.ts";
import { counted } from "../core/text/quantity.ts";
import type { AgentRecord } from "../core/update/record.ts";
import type { Reason } from "../core/update/states.ts";
import type { AgentTools } from "./agent-tools.ts";
import { poll, type PollTools } from "./poll/poll.ts";
import { withUpdateLock } from "./update-lock.ts";
import { ROOT } from "./update/roots.ts";

/** What a repair takes. */
export type RepairTools = PollTools &
  Pick<
    AgentTools,
    | ("store" | "repair" | "closures" | "roots" | "state" | "history" | "locks")
    | ("machineId" | "log")
  >;

/** Where a closure is on the mirrors, and what it must be. */
type ClosurePlace = Pick<Release, "toplevel" | "closureSize" | "archive">;

/** How a repair is meant. */
export interface RepairOptions {
  /** Look, and change nothing. */
  readonly dryRun: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Hears how many of how many paths were read. */
  readonly onVerified?: ((count: number, of: number) => void) | undefined;
}

/** Why this host needs a system. */
export const NEEDS = [
  "running",
  "booted",
  "boot default",
  "release",
  "way back",
  "next boot",
  "update",
] as const;
export type Need = (typeof NEEDS)[number];

/** A store path that was damaged or gone. */
export interface DamagedPath {
  readonly path: string;
  /** `missing`: Nix does not know it any more. */
  readonly kind: "damaged" | "missing";
  /** Whether it belongs to the running or the booted system. */
  readonly inUse: boolean;
  /** Which systems have it. */
  readonly neededBy: readonly Need[];
  readonly repaired: boolean;
  /** What was not as it must be, below the path, as far as a repair saw it; the first ones. */
  readonly files: readonly string[];
}

/** What a repair came to. */
export interface RepairOutcome {
  /** Paths that were compared with their hashes. */
  readonly verified: number;
  readonly damaged: readonly DamagedPath[];
  /** STORE_DAMAGED if something is left; null if all is well. */
  readonly error: PullError | null;
}

/** So many names of files are told for each path. */
const SHOWN_FILES = 20;

/**
 * Compares every path that this host needs with its hash: of what runs, what was booted, the boot
 * default and what the agent's roots hold. Brings what is damaged or gone back from the mirrors, as
 * far as a release that this host knows has it. Only that takes the update lock: an update, or a
 * deadline, does not wait while everything is read. Throws INTERRUPTED, TOOL_MISSING, … and the
 * errors of the state file.
 */
export async function repairStore(
  tools: RepairTools,
  options: RepairOptions,
): Promise<RepairOutcome> {
  return new Repairing(tools, options).run();
}

class Repairing {
  readonly #tools: RepairTools;
  readonly #options: RepairOptions;
  readonly #verified = new Set<string>();
  readonly #lost: Lost[] = [];
  readonly #why: Why[] = [];
  readonly #files = new Map<string, readonly string[]>();
  /** Why nothing is brought back, if an update is under way. */
  #busy: PullError | null = null;

  constructor(tools: RepairTools, options: RepairOptions) {
    this.#tools = tools;
    this.#options = options;
  }

  async run(): Promise<RepairOutcome> {
    const systems = await systemsOf(await this.#tools.state.load(), this.#tools);
    for (;;) {
      const found = await this.#look(systems);
      if (found.paths.length === 0) break;
      const some = this.#options.dryRun ? asTheyAre(found) : await this.#mend(found);
      this.#lost.push(...some);
      // What a missing system refers to could not be known before it was back.
      if (!some.some(({ kind, repaired }) => kind === "missing" && repaired)) break;
    }
    return this.#conclude(systems);
  }

  /** What is lost of these systems and was not looked at yet. */
  async #look(systems: Systems): Promise<LostPaths> {
    const { repair, store } = this.#tools;
    const { signal, onVerified } = this.#options;
    const known = new Set(this.#lost.map(({ path }) => path));
    const all = [...systems.keys()];
    const missing = (await store.invalidPaths(all)).filter((path) => !known.has(path));
    const paths = (await repair.closures(all)).filter((path) => !this.#verified.has(path));
    for (const path of paths) this.#verified.add(path);
    const damaged = await repair.damaged(paths, {
      signal,
      onVerified: (count) => onVerified?.(count, paths.length),
    });
    return { paths: [...missing, ...damaged], damaged };
  }

  /** Brings back what was found, if it still is lost once no update can come in between. */
  async #mend(found: LostPaths): Promise<Lost[]> {
    try {
      return await withUpdateLock(this.#tools, async () => {
        const { state, store, repair } = this.#tools;
        const { signal } = this.#options;
        const invalid = new Set(await store.invalidPaths(found.paths));
        const valid = found.damaged.filter((path) => !invalid.has(path));
        const damaged = await repair.damaged(valid, { signal });
        const missing = found.paths.filter((it) => invalid.has(it) && !found.damaged.includes(it));
        const lost = { paths: [...missing, ...damaged], damaged };
        const brought = await bringBack(lost, await state.load(), {
          ...{ tools: this.#tools, signal },
          onMended: (path, files) => {
            if (files.length > 0) this.#files.set(path, files.slice(0, SHOWN_FILES));
          },
        });
        this.#why.push(...brought.why);
        // What an update mended meanwhile, or a collection took since nothing needs it, is not lost.
        const repaired = new Set(brought.repaired);
        return asTheyAre(lost).map((it) => ({ ...it, repaired: repaired.has(it.path) }));
      });
    } catch (thrown) {
      const error = toPullError(thrown);
      if (error.code !== "AGENT_BUSY") throw error;
      this.#busy = error;
      return asTheyAre(found);
    }
  }

  async #conclude(systems: Systems): Promise<RepairOutcome> {
    const { repair } = this.#tools;
    const verified = this.#verified.size;
    if (this.#lost.length === 0) {
      const isNews = (await damageAlarms(this.#tools)).length > 0;
      if (isNews) await this.#note(() => noteWhole(verified, this.#tools));
      return { verified, damaged: [], error: null };
    }
    const needs = new Map<string, Set<Need>>();
    for (const [toplevel, names] of systems) {
      for (const path of [toplevel, ...(await repair.closures([toplevel]))]) {
        needs.set(path, new Set([...(needs.get(path) ?? []), ...names]));
      }
    }
    const damaged = this.#lost.map((it) => {
      const found = needs.get(it.path) ?? new Set<Need>();
      return {
        ...it,
        inUse: found.has("running") || found.has("booted"),
        neededBy: NEEDS.filter((need) => found.has(need)),
        files: this.#files.get(it.path) ?? [],
      };
    });
    const left = damaged.filter((it) => !it.repaired);
    const error = left.length === 0 ? null : this.#leftOver(left.length);
    await this.#note(() => noteRepair(damaged, error, this.#tools));
    return { verified, damaged, error };
  }

  /** Writes to the history, unless nothing may be written. */
  async #note(write: () => Promise<void>): Promise<void> {
    if (this.#options.dryRun || this.#busy !== null) return;
    try {
      await withUpdateLock(this.#tools, write);
    } catch (thrown) {
      const { code, message } = toPullError(thrown);
      this.#tools.log.warn(`the history does not tell of this repair: ${message}`, { code });
    }
  }

  #leftOver(left: number): PullError {
    if (this.#busy) {
      const { code, message } = this.#busy;
      return new PullError(
        code,
        `${manyAre(left)} damaged or missing, and nothing was repaired: ${message}`,
      );
    }
    return leftOver(left, this.#why, this.#options.dryRun);
  }
}

/** Paths that are not as they must be; `damaged` are the valid ones. */
interface LostPaths {
  readonly paths: readonly string[];
  readonly damaged: readonly string[];
}

/** Why something was not brought back: one path, or all of a release's. */
interface Why {
  readonly path: string | null;
  readonly error: PullError;
}

type Lost = Pick<DamagedPath, "path" | "kind" | "repaired">;

/** Systems by their toplevels, with what they are needed for. */
type Systems = ReadonlyMap<string, readonly Need[]>;

function asTheyAre({ paths, damaged }: LostPaths): Lost[] {
  const isDamaged = new Set(damaged);
  return paths.map((path) => {
    return { path, kind: isDamaged.has(path) ? "damaged" : "missing", repaired: false };
  });
}

/** What roots are for, other than the way back. */
const NEED_OF_ROOT: Readonly<Record<string, Need>> = {
  [ROOT.current]: "release",
  [ROOT.trial]: "next boot",
};

/** The systems that this host runs, boots, or may go back to. */
async function systemsOf(
  { state, committed, pendingReboot }: AgentRecord,
  { roots, store }: RepairTools,
): Promise<Systems> {
  // What is still being fetched is not missing.
  const fetched = "release" in state && !["Candidate", "Fetching", "Failed"].includes(state.name);
  const needed: [string | null | undefined, Need][] = [
    [await store.runningToplevel(), "running"],
    [await store.bootedToplevel(), "booted"],
    [await store.profileToplevel(), "boot default"],
    [committed?.toplevel, "release"],
    [pendingReboot?.release.toplevel, "next boot"],
    [fetched ? await roots.held(ROOT.pending) : null, "update"],
    [fetched ? state.release.toplevel : null, "update"],
  ];
  const held: [string | null, Need][] = [];
  for (const name of Object.values(ROOT).filter((it) => it !== ROOT.pending)) {
    held.push([await roots.held(name), NEED_OF_ROOT[name] ?? "way back"]);
  }
  // Old roots may name what a garbage collection has removed since.
  const invalid = new Set(await store.invalidPaths(held.flatMap(([path]) => path ?? [])));
  const systems = new Map<string, Need[]>();
  for (const [path, need] of [
    ...needed,
    ...held.filter(([path]) => path !== null && !invalid.has(path)),
  ]) {
    if (path === null || path === undefined) continue;
    const needs = systems.get(path) ?? [];
    if (!needs.includes(need)) systems.set(path, [...needs, need]);
  }
  return systems;
}

/** Asks one release after the other for what is lost; gives what came, and what went wrong. */
async function bringBack(
  lost: LostPaths,
  record: AgentRecord,
  {
    tools,
    signal,
    onMended,
  }: { tools: RepairTools; signal: AbortSignal | undefined; onMended: MendListener },
): Promise<{ repaired: string[]; why: Why[] }> {
  const { closures, repair, store } = tools;
  const why: Why[] = [];
  const tried = new Set<string>();
  let left = lost;
  const tryRelease = async (release: ClosurePlace): Promise<void> => {
    if (left.paths.length === 0 || tried.has(placeOf(release))) return;
    tried.add(placeOf(release));
    try {
      const failed = await closures.repair(release, left, { signal, onMended });
      why.push(...failed);
    } finally {
      // What came before an error is there all the same.
      const damaged = await repair.damaged(left.damaged, { signal });
      const others = left.paths.filter((path) => !left.damaged.includes(path));
      left = { paths: [...(await store.invalidPaths(others)), ...damaged], damaged };
    }
  };
  const attempt = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (thrown) {
      const error = toPullError(thrown);
      if (error.code === "INTERRUPTED") throw error;
      why.push({ path: null, error });
    }
  };
  for (const release of knownReleases(record)) await attempt(() => tryRelease(release));
  if (left.paths.length > 0) {
    await attempt(async () => {
      await tryRelease(await offered(record, tools, signal));
    });
  }
  const { paths } = left;
  return {
    repaired: lost.paths.filter((path) => !paths.includes(path)),
    // Another release may have had it.
    why: why.filter(({ path }) => path === null || paths.includes(path)),
  };
}

/** What makes two releases the same to a repair. */
function placeOf({ toplevel, archive }: ClosurePlace): string {
  return `${toplevel} ${archive.sha256}`;
}

/** Releases whose archives the record names. */
function knownReleases(record: AgentRecord): ClosurePlace[] {
  const { state, pendingReboot, committed, earlier = [] } = record;
  return [
    ...("release" in state ? [state.release] : []),
    ...(pendingReboot ? [pendingReboot.release] : []),
    ...[...(committed ? [committed] : []), ...earlier.toReversed()].flatMap(
      ({ toplevel, closureSize, archive }) =>
        archive && closureSize !== undefined ? [{ toplevel, closureSize, archive }] : [],
    ),
  ];
}

/** The release that the mirrors have for this host now. Throws the trust and MIRROR_ errors. */
async function offered(
  record: AgentRecord,
  tools: RepairTools,
  signal: AbortSignal | undefined,
): Promise<Release> {
  const { accepted, error } = await poll(tools, record.trust, { signal });
  if (!accepted) throw error ?? new PullError("MIRROR_UNREACHABLE", "no mirror has a release");
  if (accepted.offered.kind !== "understood") {
    throw new PullError("AGENT_TOO_OLD", "the release of the mirrors needs a newer agent");
  }
  return releaseFor(accepted.offered.signed, tools.settings.hostname, await tools.machineId());
}

/** Name of a repair in the history, and of one that left something. */
const REPAIRED = "StoreRepaired";
const DAMAGED = "StoreDamaged";

type NoteTools = Pick<RepairTools, "history" | "clock" | "log" | "state">;

async function note(event: string, message: string, tools: NoteTools): Promise<void> {
  const { history, clock, state } = tools;
  const at = clock.now().toISOString();
  const { name } = (await state.load()).state;
  const code = event === DAMAGED ? { code: "STORE_DAMAGED" } : {};
  await history.append({ at, event, state: name, ...code, message });
}

async function noteRepair(
  damaged: readonly DamagedPath[],
  error: PullError | null,
  tools: NoteTools,
): Promise<void> {
  const repaired = damaged.filter((it) => it.repaired).map(({ path }) => path);
  if (repaired.length > 0) {
    const message = `brought back ${repaired.length} of ${counted(damaged.length, "damaged store path")}`;
    tools.log.info(message, { paths: repaired });
    await note(REPAIRED, message, tools);
  }
  // Last, so that it is what stands.
  if (error) await note(DAMAGED, error.message, tools);
}

/** An earlier repair left something, and nothing is damaged any more. */
async function noteWhole(verified: number, tools: NoteTools): Promise<void> {
  await note(REPAIRED, `all ${counted(verified, "store path")} are whole again`, tools);
}

/** What a repair left damaged, as long as no later one found all of it whole. */
export async function damageAlarms({ history }: Pick<AgentTools, "history">): Promise<Reason[]> {
  const last = await history.findLast(DAMAGED);
  if (last?.message === undefined) return [];
  const mended = await history.findLast(REPAIRED);
  if (mended && mended.at > last.at) return [];
  return [{ code: "STORE_DAMAGED", message: last.message }];
}

function manyAre(left: number): string {
  return left === 1 ? "1 store path is" : `${left} store paths are`;
}

function leftOver(left: number, why: readonly Why[], dryRun: boolean): PullError {
  if (dryRun) return new PullError("STORE_DAMAGED", `${manyAre(left)} damaged or missing`);
  const reasons = why.map(({ path, error: { code, message } }) =>
    path === null ? `${code}: ${message}` : `${path}: ${code}: ${message}`,
  );
  const reason =
    why.length > 0 ? [...new Set(reasons)].join("; ") : "no release that this host knows has them";
  const advice = why.some(({ error }) => /^MIRROR_(?!NOT_FOUND)/.test(error.code))
    ? "run `nixos-pull repair` again once the mirror or the stick is there"
    : "publish this host's system again, or a newer one, and run `nixos-pull repair` again";
  return new PullError(
    "STORE_DAMAGED",
    `${manyAre(left)} still damaged or missing: ${reason}; ${advice}`,
  );
}

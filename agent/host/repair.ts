import { PullError, toPullError } from "../core/errors.ts";
import { releaseFor, type Release } from "../core/formats/manifest.ts";
import type { AgentRecord } from "../core/update/record.ts";
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

/** A store path that was damaged or gone. */
export interface DamagedPath {
  readonly path: string;
  /** `missing`: Nix does not know it any more. */
  readonly kind: "damaged" | "missing";
  /** Whether it belongs to the running or the booted system. */
  readonly inUse: boolean;
  readonly repaired: boolean;
}

/** What a repair came to. */
export interface RepairOutcome {
  /** Paths that were compared with their hashes. */
  readonly verified: number;
  readonly damaged: readonly DamagedPath[];
  /** STORE_DAMAGED if something is left; null if all is well. */
  readonly error: PullError | null;
}

/**
 * Compares every path that this host needs with its hash: of what runs, what was booted, the boot
 * default and what the agent's roots hold. Brings what is damaged or gone back from the mirrors, as
 * far as a release that this host knows has it. Throws AGENT_BUSY, INTERRUPTED, TOOL_MISSING, … and
 * the errors of the state file.
 */
export async function repairStore(
  tools: RepairTools,
  options: RepairOptions,
): Promise<RepairOutcome> {
  // A look changes nothing, so it does not wait for an update either.
  return options.dryRun
    ? repairNow(tools, options)
    : withUpdateLock(tools, () => repairNow(tools, options));
}

async function repairNow(tools: RepairTools, options: RepairOptions): Promise<RepairOutcome> {
  const { repair, store, state } = tools;
  const { dryRun, signal, onVerified } = options;
  const record = await state.load();
  const systems = await systemsOf(record, tools);
  const missing = await store.invalidPaths([...systems]);
  const verified = new Set<string>();
  /** The damaged ones of what is valid now and was not verified yet. */
  const damagedOf = async (): Promise<string[]> => {
    const paths = (await repair.closures([...systems])).filter((path) => !verified.has(path));
    for (const path of paths) verified.add(path);
    return repair.damaged(paths, {
      signal,
      onVerified: (count) => onVerified?.(count, paths.length),
    });
  };
  const lost: Lost[] = [];
  const why: string[] = [];
  const mend = async (some: LostPaths): Promise<void> => {
    const brought = dryRun
      ? { repaired: [], why: [] }
      : await bringBack(some, record, tools, signal);
    why.push(...brought.why);
    const repaired = new Set(brought.repaired);
    const isDamaged = new Set(some.damaged);
    for (const path of some.paths) {
      const kind = isDamaged.has(path) ? "damaged" : "missing";
      lost.push({ path, kind, repaired: repaired.has(path) });
    }
  };
  const damaged = await damagedOf();
  await mend({ paths: [...missing, ...damaged], damaged });
  // What a missing system refers to could not be known before it was back.
  if (lost.some(({ kind, repaired }) => kind === "missing" && repaired)) {
    const more = await damagedOf();
    await mend({ paths: more, damaged: more });
  }
  if (lost.length === 0) return { verified: verified.size, damaged: [], error: null };
  const used = new Set(await repair.closures(await systemsInUse(tools)));
  const outcome = lost.map((it) => ({ ...it, inUse: used.has(it.path) }));
  if (outcome.some(({ repaired }) => repaired)) await noteRepair(outcome, record, tools);
  const left = outcome.filter((it) => !it.repaired).length;
  const error = left === 0 ? null : leftOver(left, why, dryRun);
  return { verified: verified.size, damaged: outcome, error };
}

/** Paths that are not as they must be; `damaged` are the valid ones. */
interface LostPaths {
  readonly paths: readonly string[];
  readonly damaged: readonly string[];
}

type Lost = Omit<DamagedPath, "inUse">;

/** The systems that this host runs, boots, or may go back to. */
async function systemsOf(
  { state, committed, pendingReboot }: AgentRecord,
  tools: RepairTools,
): Promise<Set<string>> {
  const { roots, store } = tools;
  const held = await Promise.all(Object.values(ROOT).map((name) => roots.held(name)));
  const coming = held.at(Object.keys(ROOT).indexOf("pending")) ?? null;
  // What is still being fetched is not missing.
  const fetched = "release" in state && !["Candidate", "Fetching", "Failed"].includes(state.name);
  const others = held.filter((path) => path !== coming);
  const systems = [
    ...(await systemsInUse(tools)),
    ...[await store.profileToplevel(), committed?.toplevel, pendingReboot?.release.toplevel],
    ...(fetched ? [coming, state.release.toplevel] : []),
  ];
  const needed = systems.filter((path) => path !== null && path !== undefined);
  // Old roots may name what a garbage collection has removed since.
  const invalid = new Set(await store.invalidPaths(others.filter((path) => path !== null)));
  return new Set([
    ...needed,
    ...others.filter((path) => path !== null).filter((path) => !invalid.has(path)),
  ]);
}

async function systemsInUse({ store }: Pick<RepairTools, "store">): Promise<string[]> {
  const used = [await store.runningToplevel(), await store.bootedToplevel()];
  return used.filter((path) => path !== null);
}

/** Asks one release after the other for what is lost; gives what came, and what went wrong. */
async function bringBack(
  lost: LostPaths,
  record: AgentRecord,
  tools: RepairTools,
  signal: AbortSignal | undefined,
): Promise<{ repaired: string[]; why: string[] }> {
  const { closures, repair, store } = tools;
  const why: string[] = [];
  const tried = new Set<string>();
  let left = lost;
  const tryRelease = async (release: ClosurePlace): Promise<void> => {
    if (left.paths.length === 0 || tried.has(placeOf(release))) return;
    tried.add(placeOf(release));
    try {
      await closures.repair(release, left, { signal });
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
      why.push(`${error.code}: ${error.message}`);
    }
  };
  for (const release of knownReleases(record)) await attempt(() => tryRelease(release));
  if (left.paths.length > 0) {
    await attempt(async () => {
      await tryRelease(await offered(record, tools, signal));
    });
  }
  return { repaired: lost.paths.filter((path) => !left.paths.includes(path)), why };
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

async function noteRepair(
  damaged: readonly DamagedPath[],
  { state }: AgentRecord,
  { history, clock, log }: Pick<RepairTools, "history" | "clock" | "log">,
): Promise<void> {
  const repaired = damaged.filter((it) => it.repaired).map(({ path }) => path);
  const message = `brought back ${repaired.length} of ${damaged.length} damaged store paths`;
  log.info(message, { paths: repaired });
  await history.append({
    ...{ at: clock.now().toISOString(), event: "StoreRepaired", state: state.name, message },
  });
}

function leftOver(left: number, why: readonly string[], dryRun: boolean): PullError {
  const many = left === 1 ? "1 store path is" : `${left} store paths are`;
  if (dryRun) return new PullError("STORE_DAMAGED", `${many} damaged or missing`);
  const reason =
    why.length > 0 ? [...new Set(why)].join("; ") : "no release that this host knows has them";
  const advice = why.some((text) => /^MIRROR_(?!NOT_FOUND)/.test(text))
    ? "run `nixos-pull repair` again once the mirror or the stick is there"
    : "publish this host's system again, or a newer one, and run `nixos-pull repair` again";
  return new PullError("STORE_DAMAGED", `${many} still damaged or missing: ${reason}; ${advice}`);
}

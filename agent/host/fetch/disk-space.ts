import { PullError } from "../../core/errors.ts";
import type { Release } from "../../core/formats/manifest.ts";
import type { FreeSpace } from "../../core/ports.ts";
import { STORE_DIRECTORY } from "../../core/formats/store-path.ts";
import type { Settings } from "../../core/settings.ts";
import type { FetchPlan, PlannedDelta } from "../../core/transfer/closure-plan.ts";
import type { FetchTools } from "./tools.ts";

/** By default staging takes at most this part of the closure. */
const DEFAULT_STAGING_PART = 1 / 16;

/** Smaller imports would cost more in processes than they save in disk. */
const MIN_STAGING_BYTES = 4 * 1024 ** 2;

/** Bytes that staged NARs may take together; a NAR that is larger may lie there alone. */
export function stagingBudget(
  { closureSize }: Pick<Release, "closureSize">,
  { limits }: { readonly limits: Pick<Settings["limits"], "stagingBytes"> },
): number {
  const part = Math.ceil(closureSize * DEFAULT_STAGING_PART);
  return Math.max(limits.stagingBytes === 0 ? part : limits.stagingBytes, MIN_STAGING_BYTES);
}

/** Bytes that making a NAR takes: its base lies beside it for a while, and is about as large. */
export function roomFor({ narInfo }: PlannedDelta): number {
  return 2 * narInfo.narSize;
}

/** Bytes that the missing paths will take in the store. */
export function storeBytes({ paths }: FetchPlan): number {
  return paths.reduce((sum, { info }) => sum + info.narSize, 0);
}

/**
 * The most bytes that staging will take at once: the budget, or one piece that is larger, or
 * all pieces if they are smaller. `missing` is what `Staging.missing` gives.
 */
function mostStaged(
  { nars, paths }: FetchPlan,
  missing: ReadonlyMap<string, number>,
  budget: number,
): number {
  let most = budget;
  let all = 0;
  for (const { name, size } of nars.values()) {
    most = Math.max(most, size);
    const have = missing.get(name);
    if (have !== undefined) all += size - have;
  }
  for (const { delta } of paths) {
    if (!delta) continue;
    most = Math.max(most, roomFor(delta));
    all += roomFor(delta);
  }
  return Math.min(all, most);
}

/** The record, the history, an index and reports: what an update writes to the state directory. */
const STATE_FILES = 32;

/** A system has at least so many bytes for each file, directory and link, on average. */
const BYTES_PER_FILE = 16 * 1024;

/** What the store is called in messages. */
const THE_STORE = "the store";

/** What is to be written to one file system. */
interface Need {
  readonly what: string;
  readonly path: string;
  readonly bytes: number;
  /** Files, links and directories. */
  readonly files: (space: FreeSpace) => number;
}

/** What a plan writes, and where to. */
function needsOf(
  plan: FetchPlan,
  staged: number,
  { settings, store }: Pick<FetchTools, "settings" | "store">,
): Need[] {
  const { staging, state } = settings.paths;
  const bytes = storeBytes(plan);
  return [
    {
      ...{ what: "staging", path: staging, bytes: staged },
      // NARs, and what Nix wants to know of each path.
      files: () => plan.nars.size + plan.paths.length,
    },
    {
      ...{ what: THE_STORE, path: store.realPath(STORE_DIRECTORY), bytes },
      files: (space) => plan.paths.length + likelyFiles(bytes, space),
    },
    { what: "the state directory", path: state, bytes: 0, files: () => STATE_FILES },
  ];
}

/**
 * How many files so many bytes of NARs unpack to, if they are as large as what this file system
 * holds: nobody knows before they are unpacked.
 */
function likelyFiles(bytes: number, { free, total, inodes }: FreeSpace): number {
  const used = total === undefined ? 0 : total - free;
  if (!inodes || used <= 0) return 0;
  const perByte = (inodes.total - inodes.free) / used;
  return Math.floor(bytes * Math.min(perByte, 1 / BYTES_PER_FILE));
}

/** A file system that cannot take what is planned. */
export interface Shortage {
  readonly message: string;
  /** Whether the store lies on it. */
  readonly onStore: boolean;
  /** Bytes that are missing. If inodes are, nobody knows how many bytes hold as many. */
  readonly bytes: number;
  /** Whether the file system is too small even if it were empty: no collection helps. */
  readonly isTooSmall: boolean;
}

/**
 * What the disks of staging, store and state lack for a plan, in bytes or in inodes; nothing if it
 * fits. Throws the system's errors.
 */
export async function shortagesOf(
  plan: FetchPlan,
  missing: ReadonlyMap<string, number>,
  budget: number,
  tools: Pick<FetchTools, "settings" | "store" | "disk">,
): Promise<Shortage[]> {
  if (plan.paths.length === 0) return [];
  const { settings, disk } = tools;
  const reserve = settings.limits.reserveBytes;
  const byFileSystem = new Map<string, { space: FreeSpace; needs: Need[] }>();
  for (const need of needsOf(plan, mostStaged(plan, missing, budget), tools)) {
    const space = await disk.freeSpace(need.path);
    const { needs } = byFileSystem.get(space.fileSystem) ?? { needs: [] };
    byFileSystem.set(space.fileSystem, { space, needs: [...needs, need] });
  }
  return [...byFileSystem.values()].flatMap(({ space, needs }) => {
    const onStore = needs.some(({ what }) => what === THE_STORE);
    const bytes = needs.reduce((sum, need) => sum + need.bytes, 0);
    const files = needs.reduce((sum, need) => sum + need.files(space), 0);
    if (bytes > 0 && space.free < bytes + reserve) {
      const message =
        `${describeNeeds(needs.filter((need) => need.bytes > 0))}: expected ${bytes} bytes free ` +
        `and ${reserve} left over, found ${space.free}`;
      const { total = Infinity } = space;
      const isTooSmall = bytes + reserve > total;
      return [{ message, onStore, bytes: bytes + reserve - space.free, isTooSmall }];
    }
    if (space.inodes && space.inodes.free < files) {
      const message =
        `${describeNeeds(needs)}: expected ${files} free inodes, one for each file and directory, ` +
        `found ${space.inodes.free} of ${space.inodes.total}`;
      const isTooSmall = files > space.inodes.total;
      return [{ message, onStore, bytes: storeBytes(plan), isTooSmall }];
    }
    return [];
  });
}

/** Throws DISK_FULL for what `shortagesOf` finds, and the system's errors. */
export async function requireSpace(
  plan: FetchPlan,
  missing: ReadonlyMap<string, number>,
  budget: number,
  tools: Pick<FetchTools, "settings" | "store" | "disk">,
): Promise<void> {
  const [shortage] = await shortagesOf(plan, missing, budget, tools);
  if (shortage) throw new PullError("DISK_FULL", shortage.message);
}

function describeNeeds(needs: readonly Need[]): string {
  return needs.map(({ what, path }) => `${what} (${path})`).join(" and ");
}

/** How often the disk is looked at while Nix imports; a fast one takes 100 MB in this time. */
const DISK_WATCH_MS = 100;

/**
 * Runs an import and stops it before the store's disk is full. A NAR may unpack to more than
 * its signed size, and Nix compares that only at the NAR's end. There was room for the signed
 * sizes and the reserve; if less than half the reserve is left, the sizes were wrong. Throws
 * DISK_FULL, and what `work` throws.
 */
export async function whileSpaceLasts(
  { settings, store, disk }: Pick<FetchTools, "settings" | "store" | "disk">,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const path = store.realPath(STORE_DIRECTORY);
  const floor = settings.limits.reserveBytes / 2;
  const full = new AbortController();
  const watch = setInterval(() => {
    disk.freeSpace(path).then(
      ({ free }) => {
        if (free < floor) full.abort();
      },
      () => undefined,
    );
  }, DISK_WATCH_MS);
  try {
    await work(AbortSignal.any([signal, full.signal]));
  } catch (cause) {
    if (!full.signal.aborted || signal.aborted) throw cause;
    throw new PullError(
      "DISK_FULL",
      `${path}: the import was stopped when less than ${floor} bytes were left; either something ` +
        "else fills this disk, or the closure unpacks to more than it says",
      { cause },
    );
  } finally {
    clearInterval(watch);
  }
}

import { PullError } from "../../core/errors.ts";
import type { Release } from "../../core/formats/manifest.ts";
import { STORE_DIRECTORY } from "../../core/formats/store-path.ts";
import type { Settings } from "../../core/settings.ts";
import type { FetchPlan, PlannedDelta } from "./plan.ts";
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

/** Throws DISK_FULL if the disks of staging and store cannot take what is planned. */
export async function requireSpace(
  plan: FetchPlan,
  missing: ReadonlyMap<string, number>,
  budget: number,
  { settings, store, disk }: Pick<FetchTools, "settings" | "store" | "disk">,
): Promise<void> {
  const needs = [
    {
      path: settings.paths.staging,
      bytes: mostStaged(plan, missing, budget),
      what: "staging",
    },
    { path: store.realPath(STORE_DIRECTORY), bytes: storeBytes(plan), what: "the store" },
  ];
  const reserve = settings.limits.reserveBytes;
  const byFileSystem = new Map<string, { free: number; bytes: number; what: string[] }>();
  for (const need of needs) {
    const { free, fileSystem } = await disk.freeSpace(need.path);
    const sum = byFileSystem.get(fileSystem) ?? { free, bytes: 0, what: [] };
    sum.bytes += need.bytes;
    sum.what.push(`${need.what} (${need.path})`);
    byFileSystem.set(fileSystem, sum);
  }
  for (const { free, bytes, what } of byFileSystem.values()) {
    if (bytes > 0 && free < bytes + reserve) {
      throw new PullError(
        "DISK_FULL",
        `${what.join(" and ")}: expected ${bytes} bytes free and ${reserve} left over, found ${free}`,
      );
    }
  }
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

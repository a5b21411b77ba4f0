import type { ArchiveContents } from "../../core/formats/archive-index.ts";
import { deltaOffers, type Delta } from "../../core/transfer/delta.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import { narFileName, type NarInfo } from "../../core/formats/narinfo.ts";
import { STORE_DIRECTORY, decodeBase32 } from "../../core/formats/store-path.ts";
import type { FetchTools } from "./closure-fetch.ts";
import type { DeltaReader } from "./delta-reader.ts";

/** A path that will be made out of an older one. */
export interface PlannedDelta {
  /** Absolute store path. */
  readonly path: string;
  readonly delta: Delta;
  /** The path as it will be imported: its NAR uncompressed, the signatures as they are. */
  readonly narInfo: NarInfo;
  readonly file: string;
}

/**
 * Chooses, for each missing path, the cheapest delta whose base the store holds, where
 * it is smaller than the NAR. None where limits or a missing zstd forbid it.
 */
export async function planDeltas(
  contents: ArchiveContents,
  invalid: ReadonlySet<string>,
  { settings, store, deltas: maker, log }: FetchTools,
): Promise<Map<string, PlannedDelta>> {
  const limit = settings.limits.deltaNarBytes;
  const offers = deltaOffers(contents, limit).flatMap(({ at, entry, deltas }) => {
    const path = `${STORE_DIRECTORY}/${entry.path}`;
    const info = contents.narInfos[at];
    return info && invalid.has(path) ? [{ path, info, deltas }] : [];
  });
  const planned = new Map<string, PlannedDelta>();
  if (offers.length === 0) return planned;
  if (!(await maker.canMake())) {
    log.info(`zstd is not on PATH: ${offers.length} paths are downloaded whole`);
    return planned;
  }
  const bases = new Set(offers.flatMap(({ deltas }) => deltas.map(({ base }) => base)));
  const absent = new Set(await store.invalidPaths([...bases]));
  for (const { path, info, deltas } of offers) {
    const delta = deltas.find(({ base }) => !absent.has(base));
    if (!delta) continue;
    const fileSha256 = narSha256(info);
    const narInfo: NarInfo = {
      ...info,
      ...{ compression: "none", fileSha256, fileSize: info.narSize },
    };
    planned.set(path, { path, delta, narInfo, file: narFileName(fileSha256, "none") });
  }
  return planned;
}

function narSha256({ narHash }: NarInfo): string {
  return decodeBase32(narHash.slice("sha256:".length), 32)?.toString("hex") ?? "";
}

/** How NARs are made out of deltas. */
export interface DeltaContext {
  readonly reader: DeltaReader;
  /** The binary cache in the making. */
  readonly staging: string;
  readonly tools: FetchTools;
  readonly signal: AbortSignal;
  /** Whether there is room now, for the NAR and for its base beside it. */
  readonly hasRoom: (planned: PlannedDelta) => boolean;
  /** Waits for that room and takes it. */
  readonly reserve: (planned: PlannedDelta) => Promise<void>;
  /** Gives the room back: there will be no NAR. */
  readonly cancel: (planned: PlannedDelta) => void;
  readonly onMade: (planned: PlannedDelta) => void;
  /** The NAR has to be downloaded whole. */
  readonly onFailed: (planned: PlannedDelta, error: PullError) => void;
}

/**
 * Makes NARs of deltas, side by side and begun in this order, with no more memory together
 * than the largest may take alone. A delta that the mirror lacks, or that does not give the
 * signed NAR, is told and passed over; what is wrong with the mirror is thrown.
 */
export async function makeNars(
  planned: readonly PlannedDelta[],
  context: DeltaContext,
): Promise<void> {
  // Nobody is at work; what lies there was left by an agent that was killed.
  const { deltas: maker } = context.tools;
  await maker.removeUnfinished(context.staging);
  const limit = context.tools.settings.limits.deltaNarBytes;
  const making = new Set<Promise<void>>();
  let bytes = 0;
  const fits = (next: PlannedDelta): boolean =>
    making.size < maker.atOnce && bytes + next.narInfo.narSize <= limit && context.hasRoom(next);
  try {
    for (const next of planned) {
      const delta = await context.reader.take(next.delta).catch(toPullError);
      if (delta instanceof PullError) {
        if (delta.code !== "ARCHIVE_PARTIAL") throw delta;
        context.onFailed(next, delta);
        continue;
      }
      // Only those under way can make room that no import makes.
      while (making.size > 0 && !fits(next)) await Promise.race(making);
      await context.reserve(next);
      bytes += next.narInfo.narSize;
      const one = make(next, delta, context).finally(() => {
        making.delete(one);
        bytes -= next.narInfo.narSize;
      });
      // Whoever waits next hears of it.
      one.catch(() => undefined);
      making.add(one);
    }
    await Promise.all(making);
  } finally {
    await Promise.allSettled(making);
  }
}

async function make(
  planned: PlannedDelta,
  bytes: Buffer,
  { staging, tools, signal, cancel, onMade, onFailed }: DeltaContext,
): Promise<void> {
  const { store, deltas: maker } = tools;
  const { delta, narInfo, file } = planned;
  try {
    const base = store.realPath(delta.base);
    const nar = { file, sha256: narInfo.fileSha256, narSize: narInfo.narSize };
    await maker.make({ delta, bytes, base, directory: staging, ...nar }, signal);
  } catch (thrown) {
    const error = toPullError(thrown);
    cancel(planned);
    // Everything else is the delta's or its base's affair, and the whole NAR mends it.
    if (error.code === "INTERRUPTED" || error.code === "DISK_FULL") throw error;
    onFailed(planned, error);
    return;
  }
  onMade(planned);
}

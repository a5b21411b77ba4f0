import { createHash } from "node:crypto";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ArchiveContents } from "../core/archive-index.ts";
import { MAX_DELTA_BYTES, deltaOffers, type Delta } from "../core/delta.ts";
import { PullError, toPullError } from "../core/errors.ts";
import { narFileName, type NarInfo } from "../core/narinfo.ts";
import type { Mirror } from "../core/ports.ts";
import { STORE_DIRECTORY, decodeBase32 } from "../core/store-path.ts";
import { ByteReader } from "../effects/byte-reader.ts";
import { applyDelta, hasZstd } from "../effects/nar-delta.ts";
import type { FetchTools } from "./closure-fetch.ts";

/** A path that will be made out of an older one. */
export interface PlannedDelta {
  /** Absolute store path. */
  readonly path: string;
  readonly delta: Delta;
  /** The path as it will be imported: its NAR uncompressed, the signatures as they are. */
  readonly narInfo: NarInfo;
  readonly file: string;
}

/** Deltas held in memory at once, between their arrival and their use. */
const GATHER_BYTES = MAX_DELTA_BYTES;

/** Deltas that lie at most this far apart are read with one request. */
const GAP = 4 * 1024;

/**
 * Chooses, for each missing path, the cheapest delta whose base the store holds, where
 * it is smaller than the NAR. None where limits or a missing zstd forbid it.
 */
export async function planDeltas(
  contents: ArchiveContents,
  invalid: ReadonlySet<string>,
  { settings, store, log }: FetchTools,
): Promise<Map<string, PlannedDelta>> {
  const limit = settings.limits.deltaNarBytes;
  const offers = deltaOffers(contents, limit).flatMap(({ at, entry, deltas }) => {
    const path = `${STORE_DIRECTORY}/${entry.path}`;
    const info = contents.narInfos[at];
    return info && invalid.has(path) ? [{ path, info, deltas }] : [];
  });
  const planned = new Map<string, PlannedDelta>();
  if (offers.length === 0) return planned;
  if (!(await hasZstd())) {
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

/** How deltas are brought in. */
export interface DeltaContext {
  readonly mirror: Mirror;
  /** The binary cache in the making. */
  readonly staging: string;
  readonly tools: FetchTools;
  readonly signal: AbortSignal;
  readonly onBytes: (count: number) => void;
  /** Waits for room, for the NAR and for its base beside it. */
  readonly reserve: (planned: PlannedDelta) => Promise<void>;
  readonly onMade: (planned: PlannedDelta) => void;
  /** The NAR has to be downloaded whole. */
  readonly onFailed: (planned: PlannedDelta, error: PullError) => void;
}

/**
 * Reads these deltas, some at a time, and makes NARs of them one by one, in order. A
 * delta that does not give the signed NAR is told and passed over; what is wrong with
 * the mirror is thrown.
 */
export async function fetchDeltas(
  planned: readonly PlannedDelta[],
  context: DeltaContext,
): Promise<void> {
  let batch: PlannedDelta[] = [];
  let bytes = 0;
  for (const one of planned) {
    if (batch.length > 0 && bytes + one.delta.size > GATHER_BYTES) {
      await fetchBatch(batch, context);
      [batch, bytes] = [[], 0];
    }
    batch.push(one);
    bytes += one.delta.size;
  }
  if (batch.length > 0) await fetchBatch(batch, context);
}

async function fetchBatch(batch: readonly PlannedDelta[], context: DeltaContext): Promise<void> {
  let read: Map<Delta, Buffer>;
  try {
    read = await readDeltas(
      batch.map(({ delta }) => delta),
      context,
    );
  } catch (thrown) {
    const error = toPullError(thrown);
    const [only] = batch;
    if (error.code !== "ARCHIVE_PARTIAL" || !only) throw error;
    // A stick has the deltas that its maker knew a base for; the store may have others too.
    if (batch.length === 1) context.onFailed(only, error);
    else for (const planned of batch) await fetchBatch([planned], context);
    return;
  }
  for (const planned of batch) {
    await context.reserve(planned);
    const bytes = read.get(planned.delta);
    if (bytes) await make(planned, bytes, context);
  }
}

async function make(
  planned: PlannedDelta,
  bytes: Buffer,
  { staging, tools, signal, onMade, onFailed }: DeltaContext,
): Promise<void> {
  const { settings, store } = tools;
  const { delta, narInfo, file } = planned;
  const work = join(staging, "delta");
  const deltaFile = join(staging, "delta.zst");
  try {
    await mkdir(staging, { recursive: true, mode: 0o700 });
    await rm(work, { recursive: true, force: true });
    await rm(deltaFile, { force: true });
    await writeFile(deltaFile, bytes, { flag: "wx", mode: 0o600 });
    const target = {
      ...{ sha256: narInfo.fileSha256, narSize: narInfo.narSize },
      file: join(staging, file),
    };
    const base = store.realPath(delta.base);
    await applyDelta(delta, deltaFile, base, target, work, settings.limits, signal);
    onMade(planned);
  } catch (thrown) {
    const error = toPullError(thrown);
    // Everything else is the delta's or its base's affair, and the whole NAR mends it.
    if (error.code === "INTERRUPTED" || error.code === "DISK_FULL") throw error;
    onFailed(planned, error);
  } finally {
    await rm(deltaFile, { force: true });
  }
}

/** Reads deltas by as few requests as are worth it; each has its signed hash. */
async function readDeltas(
  deltas: readonly Delta[],
  { mirror, signal, onBytes }: DeltaContext,
): Promise<Map<Delta, Buffer>> {
  const read = new Map<Delta, Buffer>();
  const known = new Map<string, Buffer>();
  const sorted = deltas.toSorted(
    (a, b) =>
      (a.archive.sha256 < b.archive.sha256 ? -1 : a.archive.sha256 > b.archive.sha256 ? 1 : 0) ||
      a.offset - b.offset,
  );
  for (let first = sorted[0]; first; first = sorted[0]) {
    const { archive, offset: from } = first;
    let to = from;
    const run: Delta[] = [];
    while (sorted[0]?.archive.sha256 === archive.sha256) {
      const { offset, size } = sorted[0];
      if (run.length > 0 && offset - to > GAP) break;
      run.push(sorted[0]);
      to = Math.max(to, offset + size);
      sorted.shift();
    }
    const reader = new ByteReader(mirror.readArchive(archive.sha256, { from, to }, signal));
    try {
      let at = from;
      for (const delta of run) {
        const same = known.get(delta.sha256);
        if (same) read.set(delta, same);
        if (same || delta.offset < at) continue;
        await reader.skip(delta.offset - at);
        const bytes = await reader.take(delta.size);
        at = delta.offset + delta.size;
        onBytes(bytes.length);
        const found = createHash("sha256").update(bytes).digest("hex");
        if (found !== delta.sha256) {
          throw new PullError(
            "ARCHIVE_CORRUPT",
            `a delta in ${archive.sha256}.tar: expected sha256 ${delta.sha256}, found ${found}`,
          );
        }
        known.set(delta.sha256, bytes);
        read.set(delta, bytes);
      }
    } finally {
      await reader.close();
    }
  }
  return read;
}

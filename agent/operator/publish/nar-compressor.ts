import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { Compression, ParsedNarInfo, StorePathInfo } from "../../core/formats/narinfo.ts";
import { SecretScan, type FoundSecret } from "../../core/publish/secret-scan.ts";
import { Sha256, sha256Hex } from "../../core/formats/sha256.ts";
import { STORE_DIRECTORY, encodeBase32 } from "../../core/formats/store-path.ts";
import { dumpNar, withNar } from "../../effects/nix/nar-dump.ts";
import { drain, ProcessFailure, streamProcess } from "../../effects/process/subprocess.ts";
import { parallelMap } from "../../effects/process/parallel-map.ts";
import type { NarCache } from "./nar-cache.ts";

/** How NARs are compressed. Without a level, the program takes its own default. */
export interface CompressionChoice {
  readonly compression: Compression;
  readonly level?: number | undefined;
}

/** What a compression tells and asks on the way. */
export interface CompressionContext {
  readonly signal?: AbortSignal | undefined;
  /** Hears how many paths are done, and how many bytes their NARs have. */
  readonly onPath: (done: number, bytes: number) => void;
  /** Decides whether a path with these private keys may go into the cache. */
  readonly permits: (storePath: string, found: readonly FoundSecret[]) => boolean;
}

/** Longest time for one NAR. Only a program that hangs takes so long. */
const NAR_TIMEOUT_MS = 4 * 3600 * 1000;

/** Levels that each program accepts. */
export const COMPRESSION_LEVELS = {
  zstd: { min: 1, max: 19 },
  xz: { min: 0, max: 9 },
} as const;

/**
 * Puts the NARs of these paths into a binary cache, several at a time, and gives what it has of
 * them, in any order. A path that the cache has already, compressed in this way, is left alone. A
 * path that is not permitted does not get into the cache, so the next publish checks it again.
 * Throws PUBLISH_FAILED, TOOL_MISSING, INTERRUPTED.
 */
export async function compressPaths(
  paths: readonly StorePathInfo[],
  cache: NarCache,
  choice: CompressionChoice,
  context: CompressionContext,
): Promise<ParsedNarInfo[]> {
  const { compression } = choice;
  const infos: ParsedNarInfo[] = [];
  const missing: StorePathInfo[] = [];
  let done = 0;
  let bytes = 0;
  const hear = (info: Pick<StorePathInfo, "narSize"> | null): void => {
    bytes += info?.narSize ?? 0;
    context.onPath(++done, bytes);
  };
  for (const info of paths) {
    const found = await cache.find(info, compression);
    if (!found) missing.push(info);
    else {
      infos.push(found);
      hear(found);
    }
  }
  const onCompressed = (found: ParsedNarInfo | null): void => {
    if (found) infos.push(found);
    hear(found);
  };
  await parallelMap(inJobs(missing), async (job) => {
    const [info] = job;
    if (job.length > 1) await compressSmall(job, cache, choice, { ...context, onCompressed });
    else if (info) onCompressed(await compressPath(info, cache, choice, context));
  });
  return infos;
}

/** NARs up to this size are compressed many at a time: starting a program costs as much. */
const SMALL_BYTES = 256 * 1024;

/** So many NARs, of so many bytes together, are compressed by one program. */
const MAX_BATCH = 512;
const MAX_BATCH_BYTES = 4 * 1024 * 1024;

/** Divides paths into what one program compresses: a large path, or many small ones. */
function inJobs(paths: readonly StorePathInfo[]): StorePathInfo[][] {
  // The largest first, so that no core works alone on a large one at the end.
  const largestFirst = [...paths].sort((a, b) => b.narSize - a.narSize);
  const jobs: StorePathInfo[][] = [];
  let bytes = Infinity;
  for (const info of largestFirst) {
    const batch = jobs.at(-1);
    bytes += info.narSize;
    if (batch && batch.length < MAX_BATCH && bytes <= MAX_BATCH_BYTES) batch.push(info);
    else {
      jobs.push([info]);
      // Nothing joins a large path.
      bytes = info.narSize > SMALL_BYTES ? Infinity : info.narSize;
    }
  }
  return jobs;
}

/** A NAR and its compressed file, as they were measured on the way. */
interface CompressedNar {
  readonly nar: Sha256;
  readonly file: Sha256;
  /** Private keys in it. */
  readonly secrets: readonly FoundSecret[];
}

/** Throws PUBLISH_FAILED if a NAR is not the one that Nix recorded. */
function expectUnchanged(info: StorePathInfo, nar: { sha256: string; size: number }): void {
  const narHash = `sha256:${encodeBase32(Buffer.from(nar.sha256, "hex"))}`;
  if (narHash === info.narHash && nar.size === info.narSize) return;
  throw new PullError(
    "PUBLISH_FAILED",
    `${STORE_DIRECTORY}/${info.storePath} was changed in the store: expected ${info.narHash}, ` +
      `found ${narHash}; check it with nix-store --verify-path`,
  );
}

/** Compresses one path, of any size; null if it is not permitted. */
async function compressPath(
  info: StorePathInfo,
  cache: NarCache,
  choice: CompressionChoice,
  { signal, permits }: CompressionContext,
): Promise<ParsedNarInfo | null> {
  const temporary = temporaryIn(cache);
  try {
    const { nar, file, secrets } = await writeNar(info, temporary, choice, signal);
    expectUnchanged(info, { sha256: nar.hex(), size: nar.size });
    if (secrets.length > 0 && !permits(info.storePath, secrets)) return null;
    const { compression } = choice;
    return cache.place(temporary, { info, compression, sha256: file.hex(), size: file.size });
  } catch (error) {
    if (!(error instanceof ProcessFailure)) throw error;
    throw new PullError("PUBLISH_FAILED", `${info.storePath}: ${error.message}`, { cause: error });
  } finally {
    await rm(temporary, { force: true });
  }
}

/** A new name for unfinished work. */
function temporaryIn(cache: NarCache): string {
  return join(cache.directory, "nar", `.tmp-${randomBytes(6).toString("hex")}`);
}

/** What the programs append to the name of a file that they compress. */
const SUFFIX = { zstd: ".zst", xz: ".xz", none: "" } as const;

/**
 * Compresses small paths with one program. Files are written and read synchronously: each call takes
 * some microseconds, and an asynchronous one several times as long.
 */
async function compressSmall(
  infos: readonly StorePathInfo[],
  cache: NarCache,
  choice: CompressionChoice,
  context: CompressionContext & { onCompressed: (found: ParsedNarInfo | null) => void },
): Promise<void> {
  const { compression } = choice;
  const { signal, permits, onCompressed } = context;
  if (signal?.aborted) throw new PullError("INTERRUPTED", "stopped while compressing");
  const work = temporaryIn(cache);
  mkdirSync(work);
  try {
    const files: { info: StorePathInfo; file: string }[] = [];
    for (const [at, info] of infos.entries()) {
      const nar = dumpNar(`${STORE_DIRECTORY}/${info.storePath}`, SMALL_BYTES);
      if (!nar) {
        // It was changed, which is told there.
        onCompressed(await compressPath(info, cache, choice, context));
        continue;
      }
      expectUnchanged(info, { sha256: sha256Hex(nar), size: nar.length });
      const scan = new SecretScan();
      scan.push(nar);
      if (scan.found.length > 0 && !permits(info.storePath, scan.found)) {
        onCompressed(null);
        continue;
      }
      const file = join(work, String(at));
      writeFileSync(file, nar, { mode: 0o644, flag: "wx" });
      files.push({ info, file });
    }
    await runCompressor(
      files.map(({ file }) => file),
      choice,
      signal,
    );
    for (const { info, file } of files) {
      const compressed = `${file}${SUFFIX[compression]}`;
      const bytes = readFileSync(compressed);
      const sha256 = sha256Hex(bytes);
      onCompressed(cache.place(compressed, { info, compression, sha256, size: bytes.length }));
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Replaces each of these files by a compressed one. */
async function runCompressor(
  files: readonly string[],
  { compression, level }: CompressionChoice,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (files.length === 0 || compression === "none") return;
  // xz removes what it compressed unless told otherwise.
  const args = ["-q", ...levelArgument(level), ...(compression === "zstd" ? ["--rm"] : [])];
  try {
    await streamProcess(compression, [...args, "--", ...files], runOptions(signal), drain);
  } catch (error) {
    if (!(error instanceof ProcessFailure)) throw error;
    throw new PullError("PUBLISH_FAILED", error.message, { cause: error });
  }
}

function levelArgument(level: number | undefined): string[] {
  return level === undefined ? [] : [`-${level}`];
}

function runOptions(signal: AbortSignal | undefined) {
  return { env: process.env as Record<string, string>, timeoutMs: NAR_TIMEOUT_MS, signal };
}

/** Writes a path's compressed NAR to a new file, and measures both. */
async function writeNar(
  { storePath, narSize }: StorePathInfo,
  path: string,
  { compression, level }: CompressionChoice,
  signal: AbortSignal | undefined,
): Promise<CompressedNar> {
  const options = runOptions(signal);
  const measured = { nar: new Sha256(), file: new Sha256() };
  const scan = new SecretScan();
  const file = await open(path, "wx", 0o644);
  try {
    const write = async (pieces: AsyncIterable<Uint8Array>): Promise<void> => {
      for await (const piece of measured.file.pass(pieces)) await file.appendFile(piece);
    };
    await withNar(`${STORE_DIRECTORY}/${storePath}`, options, async (output) => {
      const nar = (async function* () {
        for await (const piece of measured.nar.pass(output)) {
          scan.push(piece);
          yield piece;
        }
      })();
      if (compression === "none") await write(nar);
      else {
        // Without a hint, high levels prepare for the largest of inputs.
        const hint = compression === "zstd" ? [`--size-hint=${narSize}`] : [];
        const args = [...levelArgument(level), ...hint, "-q", "-c"];
        await streamProcess(compression, args, { ...options, input: nar }, write);
      }
    });
    return { ...measured, secrets: scan.found };
  } finally {
    await file.close();
  }
}

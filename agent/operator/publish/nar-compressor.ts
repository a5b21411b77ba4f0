import { randomBytes } from "node:crypto";
import { open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import {
  narFileName,
  narInfoFileName,
  parseNarInfo,
  renderNarInfo,
  type Compression,
  type StorePathInfo,
} from "../../core/formats/narinfo.ts";
import { SecretScan, type FoundSecret } from "../../core/publish/secret-scan.ts";
import { Sha256 } from "../../core/formats/sha256.ts";
import { STORE_DIRECTORY, encodeBase32 } from "../../core/formats/store-path.ts";
import { writeDurably } from "../../effects/files/durable-file.ts";
import { isNotFound } from "../../effects/files/missing-file.ts";
import { withNar } from "../../effects/nix/nar-dump.ts";
import { ProcessFailure, streamProcess } from "../../effects/process/subprocess.ts";
import { parallelMap } from "../../effects/process/parallel-map.ts";
import { makeDirectory } from "../../effects/files/make-directory.ts";

/** How NARs are compressed. Without a level, the program takes its own default. */
export interface CompressionChoice {
  readonly compression: Compression;
  readonly level?: number | undefined;
}

/** What a compression tells and asks on the way. */
export interface CompressionContext {
  readonly signal?: AbortSignal | undefined;
  readonly onPath: (done: number) => void;
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
 * Puts the NARs of these paths into a binary cache directory, several at a time. A path that the
 * cache has already, compressed in this way, is left alone. A path that is not permitted does not
 * get into the cache, so the next publish checks it again. Throws PUBLISH_FAILED, TOOL_MISSING,
 * INTERRUPTED.
 */
export async function compressPaths(
  paths: readonly StorePathInfo[],
  cache: string,
  choice: CompressionChoice,
  context: CompressionContext,
): Promise<void> {
  await makeCache(cache);
  await writeDurably(join(cache, "nix-cache-info"), `StoreDir: ${STORE_DIRECTORY}\n`, 0o644);
  // The largest first, so that no core works alone on a large one at the end.
  const largestFirst = [...paths].sort((a, b) => b.narSize - a.narSize);
  let done = 0;
  await parallelMap(largestFirst, async (info) => {
    if (!(await isCached(cache, info, choice.compression))) {
      await compressPath(info, cache, choice, context);
    }
    context.onPath(++done);
  });
}

/** Makes the directories of a binary cache, unless they are there. Throws the system's errors. */
export async function makeCache(cache: string): Promise<void> {
  await makeDirectory(join(cache, "nar"));
}

async function isCached(
  cache: string,
  info: StorePathInfo,
  compression: Compression,
): Promise<boolean> {
  const file = narInfoFileName(info.storePath);
  try {
    const found = parseNarInfo(await readFile(join(cache, file), "utf8"), file);
    return (
      found.storePath === info.storePath &&
      found.narHash === info.narHash &&
      found.compression === compression &&
      (await stat(join(cache, found.url))).size === found.fileSize
    );
  } catch (error) {
    if (isNotFound(error) || error instanceof PullError) return false;
    throw error;
  }
}

/** A NAR and its compressed file, as they were measured on the way. */
interface CompressedNar {
  readonly nar: Sha256;
  readonly file: Sha256;
  /** Private keys in it. */
  readonly secrets: readonly FoundSecret[];
}

async function compressPath(
  info: StorePathInfo,
  cache: string,
  choice: CompressionChoice,
  { signal, permits }: CompressionContext,
): Promise<void> {
  const { compression } = choice;
  const temporary = join(cache, "nar", `.tmp-${randomBytes(6).toString("hex")}`);
  try {
    const { nar, file, secrets } = await writeNar(info, temporary, choice, signal);
    const narHash = `sha256:${encodeBase32(Buffer.from(nar.hex(), "hex"))}`;
    if (narHash !== info.narHash || nar.size !== info.narSize) {
      throw new PullError(
        "PUBLISH_FAILED",
        `${STORE_DIRECTORY}/${info.storePath} was changed in the store: expected ${info.narHash}, ` +
          `found ${narHash}; check it with nix-store --verify-path`,
      );
    }
    if (secrets.length > 0 && !permits(info.storePath, secrets)) {
      await rm(temporary);
      return;
    }
    const [fileSha256, fileSize] = [file.hex(), file.size];
    await rename(temporary, join(cache, narFileName(fileSha256, compression)));
    const narInfo = renderNarInfo({ ...info, compression, fileSha256, fileSize, signatures: [] });
    // Without fsync: after a power cut a torn file has another size, and is compressed again.
    await writeFile(temporary, narInfo, { mode: 0o644, flag: "wx" });
    await rename(temporary, join(cache, narInfoFileName(info.storePath)));
  } catch (error) {
    await rm(temporary, { force: true });
    if (!(error instanceof ProcessFailure)) throw error;
    throw new PullError("PUBLISH_FAILED", `${info.storePath}: ${error.message}`, { cause: error });
  }
}

/** Writes a path's compressed NAR to a new file, and measures both. */
async function writeNar(
  { storePath }: StorePathInfo,
  path: string,
  { compression, level }: CompressionChoice,
  signal: AbortSignal | undefined,
): Promise<CompressedNar> {
  const options = { env: process.env as Record<string, string>, timeoutMs: NAR_TIMEOUT_MS, signal };
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
        const args = [...(level === undefined ? [] : [`-${level}`]), "-q", "-c"];
        await streamProcess(compression, args, { ...options, input: nar }, write);
      }
    });
    return { ...measured, secrets: scan.found };
  } finally {
    await file.close();
  }
}

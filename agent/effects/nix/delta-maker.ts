import { open, rename, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { PullError } from "../../core/errors.ts";
import { Sha256 } from "../../core/formats/sha256.ts";
import type { DeltaMaker, NarOrder } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { rewriteHashes } from "../../core/transfer/hash-rewriter.ts";
import { withNar } from "./nar-dump.ts";
import { childEnvironment } from "./nix-environment.ts";
import { drain, streamProcess } from "../process/subprocess.ts";
import { makeDirectory } from "../files/make-directory.ts";

/** A maker of NARs with these limits (`limits.deltaNarBytes`, `limits.deltaTimeout`). */
export function deltaMaker(limits: DeltaLimits): DeltaMaker {
  return {
    // Each keeps two programs busy in turn, which start as long as they run.
    atOnce: Math.min(4, availableParallelism()),
    canMake: hasZstd,
    removeUnfinished: (directory) => rm(workplace(directory), { recursive: true, force: true }),
    make: (order, signal) => makeNar(order, limits, signal),
  };
}

export type DeltaLimits = Pick<Settings["limits"], "deltaNarBytes" | "deltaTimeout">;

/** Whether `zstd` can be run here: without it there are no deltas. */
export async function hasZstd(): Promise<boolean> {
  try {
    const options = { env: childEnvironment(), timeoutMs: 10_000 };
    await streamProcess("zstd", ["--version"], options, drain);
    return true;
  } catch {
    return false;
  }
}

/** Bases and unfinished NARs lie here, in a directory for each NAR. */
function workplace(staging: string): string {
  return join(staging, "deltas");
}

async function makeNar(order: NarOrder, limits: DeltaLimits, signal: AbortSignal): Promise<void> {
  const work = join(workplace(order.directory), basename(order.file));
  try {
    await makeDirectory(work, 0o700);
    await applyDelta(order, work, limits, signal);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/**
 * Dumps the base's NAR, replaces the hashes in it, and applies the delta with
 * `zstd --patch-from`. `work` is an empty directory, in which files are left.
 */
async function applyDelta(
  { delta, bytes, base: basePath, directory, file, sha256, narSize }: NarOrder,
  work: string,
  limits: DeltaLimits,
  signal: AbortSignal,
): Promise<void> {
  const base = join(work, "base.nar");
  const deltaFile = join(work, "delta.zst");
  const result = join(work, "result.nar");
  const options = { env: childEnvironment(), timeoutMs: limits.deltaTimeout, signal };
  await writeFile(deltaFile, bytes, { flag: "wx", mode: 0o600 });
  await withNar(basePath, options, (nar) =>
    writeBounded(base, rewriteHashes(nar, delta.replacements), limits.deltaNarBytes),
  );
  // The window spans base and result.
  const memory = Math.ceil((2 * limits.deltaNarBytes) / 1024 ** 2) + 64;
  const args = ["-d", "-q", "-c", `--memory=${memory}MB`, `--patch-from=${base}`, deltaFile];
  const hash = new Sha256();
  await streamProcess("zstd", args, options, (nar) =>
    writeBounded(result, hash.pass(nar), narSize),
  );
  const found = hash.hex();
  if (found !== sha256) {
    throw new PullError(
      "ARCHIVE_CORRUPT",
      `a delta gave another NAR: expected sha256 ${sha256}, found ${found}`,
    );
  }
  await rename(result, join(directory, file));
}

/** Writes at most `limit` bytes to a new file. Throws ARCHIVE_CORRUPT. */
async function writeBounded(
  path: string,
  pieces: AsyncIterable<Uint8Array>,
  limit: number,
): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    let size = 0;
    for await (const piece of pieces) {
      size += piece.length;
      if (size > limit) {
        throw new PullError("ARCHIVE_CORRUPT", `${path}: expected at most ${limit} bytes`);
      }
      await file.appendFile(piece);
    }
  } finally {
    await file.close();
  }
}

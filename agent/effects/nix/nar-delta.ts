import { createHash, type Hash } from "node:crypto";
import { open, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { Delta } from "../../core/transfer/delta.ts";
import { rewriteHashes } from "../../core/transfer/hash-rewriter.ts";
import { withNar } from "./nar-dump.ts";
import { childEnvironment } from "./nix-environment.ts";
import { drain, streamProcess } from "../process/process-stream.ts";

/** What a delta has to give, and what it may take. */
export interface DeltaTarget {
  /** `sha256` of the NAR, hex. */
  readonly sha256: string;
  readonly narSize: number;
  /** Where the NAR is put. */
  readonly file: string;
}

export interface DeltaLimits {
  readonly deltaNarBytes: number;
  readonly deltaTimeout: number;
}

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

/**
 * Makes a NAR out of an older path's: dumps it, replaces the hashes, applies the delta
 * with `zstd --patch-from`. `realPath` is the file behind the base's store path, `work` an
 * empty directory of the caller's, in which files are left. What comes out is bounded by the
 * signed size and has the signed hash, or it is not put in place. Throws ARCHIVE_CORRUPT
 * where it has not, a ProcessFailure where a program failed, TOOL_…, INTERRUPTED, the
 * system's errors.
 */
export async function applyDelta(
  { replacements }: Pick<Delta, "replacements">,
  bytes: Uint8Array,
  realPath: string,
  target: DeltaTarget,
  work: string,
  limits: DeltaLimits,
  signal: AbortSignal | undefined,
): Promise<void> {
  const base = join(work, "base.nar");
  const deltaFile = join(work, "delta.zst");
  const result = join(work, "result.nar");
  const options = { env: childEnvironment(), timeoutMs: limits.deltaTimeout, signal };
  await writeFile(deltaFile, bytes, { flag: "wx", mode: 0o600 });
  await withNar(realPath, options, (nar) =>
    writeBounded(base, rewriteHashes(nar, replacements), limits.deltaNarBytes),
  );
  // The window spans base and result.
  const memory = Math.ceil((2 * limits.deltaNarBytes) / 1024 ** 2) + 64;
  const args = ["-d", "-q", "-c", `--memory=${memory}MB`, `--patch-from=${base}`, deltaFile];
  const hash = createHash("sha256");
  await streamProcess("zstd", args, options, (nar) =>
    writeBounded(result, hashed(nar, hash), target.narSize),
  );
  const found = hash.digest("hex");
  if (found !== target.sha256) {
    throw new PullError(
      "ARCHIVE_CORRUPT",
      `a delta gave another NAR: expected sha256 ${target.sha256}, found ${found}`,
    );
  }
  await rename(result, target.file);
}

async function* hashed(pieces: AsyncIterable<Uint8Array>, hash: Hash): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    hash.update(piece);
    yield piece;
  }
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

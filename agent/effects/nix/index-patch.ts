import { MAX_INDEX_BYTES } from "../../core/formats/archive-index.ts";
import { PullError } from "../../core/errors.ts";
import type { ApplyIndexPatch } from "../../core/ports.ts";
import { readBounded } from "../files/bounded-read.ts";
import { childEnvironment } from "./nix-environment.ts";
import { streamProcess } from "../process/subprocess.ts";

/** An index is small; a program that needs longer than this is stuck. */
const TIMEOUT_MS = 60_000;

/** Runs `zstd --patch-from`. Throws a ProcessFailure if the patch does not fit. */
export const applyIndexPatch: ApplyIndexPatch = async (base, patch, signal) => {
  // The window spans both indexes.
  const memory = Math.ceil((2 * MAX_INDEX_BYTES) / 1024 ** 2) + 64;
  const args = ["-d", "-q", "-c", `--memory=${memory}MB`, `--patch-from=${base}`, "-"];
  const options = { env: childEnvironment(), timeoutMs: TIMEOUT_MS, signal, input: patch };
  return streamProcess("zstd", args, options, async (output) => {
    const index = await readBounded(output, MAX_INDEX_BYTES);
    if (index !== null) return index;
    throw new PullError(
      "ARCHIVE_CORRUPT",
      `patched index: expected at most ${MAX_INDEX_BYTES} bytes`,
    );
  });
};

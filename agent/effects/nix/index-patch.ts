import { MAX_INDEX_BYTES } from "../../core/formats/archive-index.ts";
import { PullError } from "../../core/errors.ts";
import { childEnvironment } from "./nix-environment.ts";
import { streamProcess } from "../process/process-stream.ts";

/** An index is small; whoever needs longer than this is stuck. */
const TIMEOUT_MS = 60_000;

/**
 * Applies a patch (`zstd --patch-from`) to the index in a file; gives the new index's JSON,
 * which nobody has looked at. Throws ARCHIVE_CORRUPT where it grows too large, a
 * ProcessFailure where the patch does not fit, TOOL_…, INTERRUPTED.
 */
export async function applyIndexPatch(
  base: string,
  patch: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  // The window spans both indexes.
  const memory = Math.ceil((2 * MAX_INDEX_BYTES) / 1024 ** 2) + 64;
  const args = ["-d", "-q", "-c", `--memory=${memory}MB`, `--patch-from=${base}`, "-"];
  const options = { env: childEnvironment(), timeoutMs: TIMEOUT_MS, signal, input: once(patch) };
  return streamProcess("zstd", args, options, async (output) => {
    const pieces: Buffer[] = [];
    let size = 0;
    for await (const piece of output) {
      size += piece.length;
      if (size > MAX_INDEX_BYTES) {
        throw new PullError(
          "ARCHIVE_CORRUPT",
          `patched index: expected at most ${MAX_INDEX_BYTES} bytes`,
        );
      }
      pieces.push(piece);
    }
    return Buffer.concat(pieces);
  });
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

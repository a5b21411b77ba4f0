import { PullError, toPullError } from "../../core/errors.ts";
import type { Staging } from "../../core/ports.ts";
import type { DeltaReader } from "./delta-reader.ts";
import { roomFor } from "./disk-space.ts";
import type { ImportStream } from "./import-stream.ts";
import type { PlannedDelta } from "../../core/transfer/closure-plan.ts";
import type { FetchTools } from "./tools.ts";

/** How NARs are made out of deltas. */
export interface MakeContext {
  readonly reader: DeltaReader;
  readonly staging: Staging;
  readonly imports: ImportStream;
  readonly tools: Pick<FetchTools, "settings" | "store" | "deltas">;
  readonly signal: AbortSignal;
  readonly onMade: (planned: PlannedDelta) => void;
  /** The NAR has to be downloaded whole. */
  readonly onFailed: (planned: PlannedDelta, error: PullError) => void;
}

/**
 * Makes NARs of deltas, several at a time and begun in this order, with no more memory
 * together than the largest may take alone, and hands them to the imports. Tells and passes
 * over a delta that the mirror lacks, or that does not give the signed NAR. Throws what is
 * wrong with the mirror, what an import threw, INTERRUPTED, DISK_FULL.
 */
export async function makeNars(
  planned: readonly PlannedDelta[],
  context: MakeContext,
): Promise<void> {
  const { reader, imports, tools } = context;
  const limit = tools.settings.limits.deltaNarBytes;
  const making = new Set<Promise<void>>();
  const failures: unknown[] = [];
  let bytes = 0;
  const fits = (next: PlannedDelta): boolean =>
    making.size < tools.deltas.atOnce &&
    bytes + next.narInfo.narSize <= limit &&
    imports.hasRoom(roomFor(next));
  const begin = (next: PlannedDelta, delta: Buffer): void => {
    bytes += next.narInfo.narSize;
    const one = make(next, delta, context)
      .catch((error: unknown) => failures.push(error))
      .then(() => {
        making.delete(one);
        bytes -= next.narInfo.narSize;
      });
    making.add(one);
  };
  try {
    for (const next of planned) {
      const delta = await reader.take(next.delta).catch(toPullError);
      if (delta instanceof PullError) {
        if (delta.code !== "ARCHIVE_PARTIAL") throw delta;
        context.onFailed(next, delta);
        continue;
      }
      // Only NARs that are being made can give back room that no import gives back.
      while (making.size > 0 && !fits(next)) await Promise.race(making);
      if (failures.length > 0) break;
      await imports.reserve(roomFor(next));
      begin(next, delta);
    }
  } finally {
    await Promise.all(making);
  }
  // It may have come at any moment, also while nobody waited for it.
  if (failures.length > 0) throw failures[0];
}

async function make(
  planned: PlannedDelta,
  bytes: Buffer,
  { staging, imports, tools, signal, onMade, onFailed }: MakeContext,
): Promise<void> {
  const { delta, narInfo, file } = planned;
  const { directory } = staging;
  const { fileSha256: sha256, narSize } = narInfo;
  try {
    const base = tools.store.realPath(delta.base);
    await tools.deltas.make({ delta, bytes, base, directory, file, sha256, narSize }, signal);
  } catch (thrown) {
    const error = toPullError(thrown);
    imports.cancel(roomFor(planned));
    // Everything else is the fault of the delta or its base, and the whole NAR mends it.
    if (error.code === "INTERRUPTED" || error.code === "DISK_FULL") throw error;
    onFailed(planned, error);
    return;
  }
  onMade(planned);
  imports.cancel(roomFor(planned) - narSize);
  imports.arrived(file, narSize);
}

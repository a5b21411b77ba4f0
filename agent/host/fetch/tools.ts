import type {
  ApplyIndexPatch,
  DeltaMaker,
  Disk,
  GcRoots,
  IndexCache,
  Log,
  NixStore,
  StagingArea,
} from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import type { FailoverTools } from "../poll/mirror-failover.ts";

/** How far a download is, in bytes of NARs and deltas. */
export interface FetchProgress {
  readonly received: number;
  /** Grows when a delta turns out to be useless and a whole NAR comes in its place. */
  readonly total: number;
}

/** Everything outside that a fetch uses. */
export interface FetchTools extends FailoverTools {
  readonly settings: Settings;
  readonly store: NixStore;
  readonly roots: GcRoots;
  readonly disk: Disk;
  readonly staging: StagingArea;
  readonly indexes: IndexCache;
  readonly applyIndexPatch: ApplyIndexPatch;
  readonly deltas: DeltaMaker;
  readonly log: Log;
  readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
}

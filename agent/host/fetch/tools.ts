import type {
  AdvanceListener,
  ApplyIndexPatch,
  CollectionListener,
  DeltaMaker,
  Disk,
  FetchProgress,
  GcRoots,
  IndexCache,
  Log,
  MendListener,
  NixStore,
  StagingArea,
  StoreRepair,
} from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import type { FailoverTools } from "../poll/mirror-failover.ts";

/** Everything outside that a fetch uses. */
export interface FetchTools extends FailoverTools {
  readonly settings: Settings;
  readonly store: NixStore;
  readonly repair: StoreRepair;
  readonly roots: GcRoots;
  readonly disk: Disk;
  readonly staging: StagingArea;
  readonly indexes: IndexCache;
  readonly applyIndexPatch: ApplyIndexPatch;
  readonly deltas: DeltaMaker;
  readonly log: Log;
  readonly onAdvance?: AdvanceListener | undefined;
  /**
   * The most that attempts of this process had staged of an archive, bytes, by its sha256. What a
   * mirror sends, is refused and comes again is no progress.
   */
  readonly furthest: Map<string, number>;
  readonly onMended?: MendListener | undefined;
  /** Hears of garbage that was collected to make room. */
  readonly onCollected?: CollectionListener | undefined;
  readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
}

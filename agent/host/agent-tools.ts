import type {
  Activator,
  BootDirectory,
  BootLoader,
  CheckedFiles,
  Clock,
  ClosureFetch,
  Deadline,
  Disk,
  Examination,
  FetchSign,
  GcRoots,
  HealthProbe,
  HistoryStore,
  HookRunner,
  HostKey,
  Locks,
  Log,
  ManifestCache,
  Mirror,
  NixStore,
  OperatorCommandFiles,
  OperatorCommandsWatch,
  RebootLock,
  ReportOutlets,
  ReportSpool,
  ServiceManager,
  StateStore,
  StickWatch,
  StoreRepair,
  StrayErrors,
  Successor,
  SystemContents,
  Timers,
  Watchdog,
} from "../core/ports.ts";
import type { Settings } from "../core/settings.ts";
import type { MirrorStandings } from "./poll/mirror-standings.ts";
import type { VerifiedOffers } from "./poll/verified-offers.ts";

/**
 * One host's settings and every port to its outside world. `compose.ts` makes it of the real
 * effects. No function takes it whole: each names what it uses (`Pick<AgentTools, …>`).
 */
export interface AgentTools {
  readonly settings: Settings;
  readonly log: Log;
  readonly clock: Clock;
  readonly timers: Timers;
  /** Uniform in [0, 1); jitter only. */
  readonly random: () => number;
  /** This machine's hashed identity; null if there is none. */
  readonly machineId: () => Promise<string | null>;
  /** The name of this host at this moment: that of the settings, or the system's own. */
  readonly hostname: () => string;
  /** The kind of this machine, as uname(2) names it. */
  readonly machine: string;
  /** What this agent understands of what a release may require. */
  readonly features: readonly string[];
  /** The program and script that this process runs. */
  readonly ownProgram: readonly string[];
  /** Whether this process is the service, which systemd starts again when it ends. */
  readonly isService: boolean;

  readonly mirrors: readonly Mirror[];
  readonly standings: MirrorStandings;
  readonly offers: VerifiedOffers;
  /** Ends all connections to mirrors; later requests make new ones. */
  readonly closeConnections: () => Promise<void>;
  readonly strayErrors: StrayErrors;
  readonly watchdog: Watchdog;
  readonly cache: ManifestCache;
  readonly closures: ClosureFetch;
  readonly fetchSign: FetchSign;

  readonly store: NixStore;
  readonly repair: StoreRepair;
  readonly roots: GcRoots;
  readonly disk: Disk;
  /** What `doctor` looks at. */
  readonly examination: Examination;
  readonly boot: BootDirectory;
  readonly bootLoader: BootLoader;

  readonly activator: Activator;
  readonly services: ServiceManager;
  readonly systems: SystemContents;
  readonly deadline: Deadline;
  readonly successor: Successor;
  readonly probe: HealthProbe;
  readonly runHook: HookRunner;
  /** Null if no FleetLock server is configured. */
  readonly rebootLock: RebootLock | null;

  readonly state: StateStore;
  readonly history: HistoryStore;
  readonly files: CheckedFiles;
  readonly locks: Locks;
  readonly commands: OperatorCommandFiles;

  readonly sticks: StickWatch;
  readonly commandsWatch: OperatorCommandsWatch;

  readonly hostKey: HostKey;
  readonly spool: ReportSpool;
  readonly outlets: ReportOutlets;
}

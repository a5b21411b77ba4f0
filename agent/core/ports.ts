import type { NarMember } from "./formats/archive-index.ts";
import type { ByteRange } from "./formats/byte-ranges.ts";
import type { HealthCheck } from "./formats/health-check.ts";
import type { NarInfo } from "./formats/narinfo.ts";
import type { Delta } from "./transfer/delta.ts";
import type { ActivationMode } from "./formats/manifest.ts";
import type { SwitchFacts } from "./update/switch-output.ts";
import type { UnitState } from "./update/unit-states.ts";

/**
 * The agent's outside world as interfaces. `effects/` has the real ones; tests put
 * fakes here and nowhere else.
 */

/** Tells the time; the only source of "now" for decisions. */
export interface Clock {
  now(): Date;
}

/** What a mirror said a file's version was, for the next conditional request (RFC 9110, 13.1). */
export interface Validators {
  readonly etag?: string | undefined;
  readonly lastModified?: string | undefined;
}

export type ManifestRead =
  | { readonly kind: "unchanged" }
  | { readonly kind: "read"; readonly bytes: Uint8Array; readonly validators: Validators };

/** A tree of files that anybody may have written. Nothing that it gives is trusted. */
export interface Mirror {
  /** As configured; names the mirror in messages and status. */
  readonly address: string;

  /** False once a read from the middle came from the start: better one read than many. */
  readonly ranges: boolean;

  /**
   * Reads `channels/CHANNEL/manifest.json`, at most `limits.manifestBytes` of it.
   * Throws the MIRROR_ errors and, for directories, the operating system's.
   */
  readManifest(
    channel: string,
    options: { validators?: Validators | undefined; signal?: AbortSignal | undefined },
  ): Promise<ManifestRead>;

  /**
   * Streams `archives/SHA256.tar` from byte `from` up to and not including `to`.
   * A server that knows no ranges is read from its start and the rest skipped. The
   * stream may end early or late; its reader checks. Throws the MIRROR_ errors.
   */
  readArchive(
    sha256: string,
    range: { from: number; to: number },
    signal?: AbortSignal,
  ): AsyncIterable<Uint8Array>;

  /**
   * Which bytes of an archive it has, ascending and apart, or null for all of them; absent
   * where a mirror never has parts. Throws as `readArchive`.
   */
  heldParts?(sha256: string): Promise<readonly ByteRange[] | null>;
}

/** The Nix store and profile of the host. */
export interface NixStore {
  /** Which of these store paths (absolute) the store does not hold as valid. */
  invalidPaths(paths: readonly string[]): Promise<string[]>;

  /**
   * Imports these paths, and none that they refer to, from the binary cache in
   * `directory`; Nix checks hashes, signatures and that every reference is valid or
   * comes with them. Throws IMPORT_FAILED, DISK_FULL, TOOL_MISSING, …
   */
  importPaths(directory: string, paths: readonly string[], signal?: AbortSignal): Promise<void>;

  /**
   * Waits until everything that was imported is on the disk: Nix records a path as valid
   * before its contents are there. Throws TOOL_MISSING, TOOL_TIMEOUT, …
   */
  flush(): Promise<void>;

  /**
   * Compares the closures of these paths with their hashes, without what the profile and the
   * running system have, and removes what is damaged, with what refers to it. Gives the
   * removed paths; invalid ones are passed over. Throws IO_FAILED, …
   */
  removeDamaged(paths: readonly string[]): Promise<string[]>;

  /** `nix-env --profile … --set`: a new generation. Throws PROFILE_FAILED, … */
  setProfile(toplevel: string): Promise<void>;

  /**
   * Points the profile at an earlier generation again, or takes it away where there was
   * none (null); no generation is deleted. Throws PROFILE_FAILED, …
   */
  restoreProfile(generation: number | null): Promise<void>;

  /** The store path that the system profile points at, or null where there is none. */
  profileToplevel(): Promise<string | null>;

  /** Number of the profile's current generation, or null where there is none. */
  profileGeneration(): Promise<number | null>;

  /**
   * Generation `number` of the profile, or with null the newest one before the current; null
   * where there is no such generation.
   */
  findGeneration(number: number | null): Promise<{ generation: number; toplevel: string } | null>;

  /** Deletes all but the newest `keep` generations; the current one always stays. */
  pruneGenerations(keep: number): Promise<void>;

  /** The store path of the running system (`/run/current-system`), or null where unknown. */
  runningToplevel(): Promise<string | null>;

  /** That of the system that was booted (`/run/booted-system`), or null where unknown. */
  bootedToplevel(): Promise<string | null>;

  /** The real file behind a store path: other than the path itself in a chroot store. */
  realPath(storePath: string): string;
}

/**
 * The binary cache that one archive becomes on its way into the store. What is in it
 * outlives the agent, so that a later attempt goes on where this one stopped.
 */
export interface Staging {
  /** Its directory, for Nix: `nix copy --from file://DIRECTORY`. */
  readonly directory: string;

  /** Makes the directory and removes those of other archives. Throws STAGING_UNSAFE, …. */
  prepare(): Promise<void>;

  /** The compressed index as an earlier attempt wrote it, not verified, or null. */
  readIndex(): Promise<Buffer | null>;
  writeIndex(compressed: Uint8Array): Promise<void>;

  /**
   * Which of the wanted NARs are not here whole, by name, and how many bytes of each are
   * here already. A NAR counts as whole only if it has its hash; what cannot be used is removed.
   */
  missing(wanted: Iterable<NarMember>): Promise<Map<string, number>>;

  /**
   * Writes what follows the first `have` bytes of a NAR; `onBytes` hears of every piece.
   * What came before `pieces` throws is kept. Throws what `pieces` throws, the system's
   * errors, and ARCHIVE_CORRUPT if the NAR does not have its hash; it is removed then.
   */
  writeNar(
    member: NarMember,
    have: number,
    pieces: AsyncIterable<Uint8Array>,
    onBytes: (count: number) => void,
  ): Promise<void>;

  /** Writes what `nix copy` needs beside the NARs of these paths. */
  writeNarInfos(narInfos: readonly NarInfo[]): Promise<void>;

  /** Removes the narinfos of these paths, and these files: the store has them now. */
  discard(narInfos: readonly NarInfo[], files: readonly string[]): Promise<void>;

  /** Whether anything is here that a later attempt can go on with. */
  holdsNars(): Promise<boolean>;
}

/** Where archives are staged. */
export interface StagingArea {
  /** Staging of the archive with this hash; nothing is touched before `prepare`. */
  open(archiveSha256: string): Staging;
  /** Removes everything that is staged, of any archive. */
  remove(): Promise<void>;
}

/** Indexes of closures that this host imported, by the hash that a manifest gave of each. */
export interface IndexCache {
  /** The file of an index, decompressed, or null. */
  find(sha256: string): Promise<string | null>;
  /** Keeps the JSON of an index; an older one gives way. Throws the system's errors. */
  keep(sha256: string, json: Uint8Array): Promise<void>;
}

/**
 * Applies a patch to the index in file `base`; gives the JSON of the new index, not
 * verified. Throws ARCHIVE_CORRUPT if it grows too large, TOOL_MISSING, TOOL_TIMEOUT,
 * INTERRUPTED, and other errors if the patch does not fit.
 */
export type ApplyIndexPatch = (
  base: string,
  patch: Uint8Array,
  signal?: AbortSignal,
) => Promise<Buffer>;

/** A NAR that is to be made out of a delta. */
export interface NarOrder {
  readonly delta: Pick<Delta, "replacements">;
  /** The delta itself. */
  readonly bytes: Uint8Array;
  /** The real file behind the base's store path. */
  readonly base: string;
  /** The staging directory. */
  readonly directory: string;
  /** Where in it the NAR is put, and what it must be. */
  readonly file: string;
  readonly sha256: string;
  readonly narSize: number;
}

/** Makes NARs out of deltas and older store paths. */
export interface DeltaMaker {
  /** How many NARs are best made at a time. */
  readonly atOnce: number;

  /** Whether this host can do it: it needs `zstd`. */
  canMake(): Promise<boolean>;

  /** Removes what a killed agent left unfinished in a staging directory. */
  removeUnfinished(directory: string): Promise<void>;

  /**
   * Makes a NAR. It is put in place only if it has the signed size and hash; nothing
   * unfinished stays. Throws ARCHIVE_CORRUPT, TOOL_MISSING, TOOL_TIMEOUT, INTERRUPTED, the
   * system's errors, and other errors if a program failed.
   */
  make(order: NarOrder, signal: AbortSignal): Promise<void>;
}

/** Keeps closures alive by name: links in a garbage collector root directory. */
export interface GcRoots {
  /** Points the root `name` at a store path; the path need not be valid yet. */
  hold(name: string, storePath: string): Promise<void>;
  /** Adds roots below `name`, one for each of these paths, valid yet or not. */
  holdAlso(name: string, storePaths: readonly string[]): Promise<void>;
  /** Lets go of the root, or of all roots below that name. */
  release(name: string): Promise<void>;
  /** What the root points at, or null. */
  held(name: string): Promise<string | null>;
  /** What the roots below that name point at. */
  heldBelow(name: string): Promise<string[]>;
}

/** What a toplevel's own `bin/switch-to-configuration` can be asked to do. */
export type SwitchAction = ActivationMode | "check";

/** How one run of switch-to-configuration ended. */
export interface ActivationResult {
  /** Exit code, or null if a signal or the time limit ended it. */
  readonly exitCode: number | null;
  readonly timedOut: boolean;
  /** Whether another process held the switch's lock when this run had ended. */
  readonly lockHeld: boolean;
  /** What the whole output shows. */
  readonly facts: SwitchFacts;
  /** The lines of the output that say most, for history; bounded. */
  readonly lastLines: readonly string[];
}

/** How a run is wanted. */
export interface ActivationOptions {
  /** Leaves the system's pre-switch checks out: the way back must not be vetoed. */
  readonly unchecked?: boolean;
}

/** Runs a toplevel's own `bin/switch-to-configuration`. */
export interface Activator {
  /** Whether the toplevel can be activated at all. */
  canActivate(toplevel: string): Promise<boolean>;

  /** Whether it knows the action `check`: its pre-switch checks without a switch. */
  hasCheck(toplevel: string): Promise<boolean>;

  /**
   * Runs it to its end. A run of the same toplevel and action that an earlier agent began
   * is awaited instead of begun again, where it can still be found. A run that outlives
   * the agent is not waited for any longer once `signal` says stop (INTERRUPTED); one
   * that does not is brought to its end.
   */
  activate(
    toplevel: string,
    action: SwitchAction,
    signal?: AbortSignal,
    options?: ActivationOptions,
  ): Promise<ActivationResult>;
}

/** What is wrong with the units of a host, as far as systemd shows it. */
export interface UnitTroubles {
  /** Units that are failed, or that wait to be started again after a failure; sorted. */
  readonly failed: readonly string[];
  /** How often systemd started a unit again by itself, where it did at all. */
  readonly restarts: ReadonlyMap<string, number>;
}

/** The host's boots and units. */
export interface ServiceManager {
  /** Identity of this boot: another one means that everything that ran was cut off. */
  bootId(): Promise<string>;

  /** What is wrong with the units, or null where it cannot be known. */
  unitTroubles(): Promise<UnitTroubles | null>;

  /** Names of all units that are active, sorted; null if that cannot be known. */
  activeUnits(): Promise<string[] | null>;

  /** What systemd says of these units; of one that it does not know, that it is not found. */
  unitStates(units: readonly string[]): Promise<UnitState[]>;

  /** Starts units, and waits a bounded time for it; those that do not start are no error. */
  startUnits(units: readonly string[]): Promise<void>;

  /**
   * Has `command` run in `seconds`, whatever becomes of the agent, unless disarmed; a
   * deadline that was armed before is replaced. Lost with a reboot.
   */
  armDeadline(seconds: number, command: readonly string[]): Promise<void>;
  disarmDeadline(): Promise<void>;

  /** Ends the agent's service and a switch that still runs, for whoever takes over. */
  stopAgent(): Promise<void>;
  /** Has the agent's service start again; does not wait for it. */
  startAgent(): Promise<void>;
  /** Has the agent's service, where it runs, start anew; does not wait for it. */
  restartAgent(): Promise<void>;

  /** Asks for a reboot; gives back before it comes. */
  reboot(): Promise<void>;
}

/** What stands in the files of a system, activated or not. */
export interface SystemContents {
  /** The switch inhibitors, by name; null for a system that has none. */
  inhibitors(toplevel: string): Promise<ReadonlyMap<string, string> | null>;
  /** The whole definition of a unit with its drop-ins, or null if the system does not have it. */
  unitDefinition(toplevel: string, unit: string): Promise<string | null>;
}

/** What goes back, should no agent commit a release. */
export interface Deadline {
  /** The command to run at the deadline of a system, its toplevel. */
  command(toplevel: string): Promise<readonly string[]>;
  /** Has it run some time after the next boot; the system's boot timer looks for it. */
  armForBoot(toplevel: string): Promise<void>;
  disarmForBoot(): Promise<void>;
}

/** The agent that the system brings along, where it is another one than the one that runs. */
export interface Successor {
  /** What the service manager would start now; the first look is what is compared with. */
  look(): Promise<{
    /** Whether program, configuration or unit changed since the first look. */
    readonly differs: boolean;
    /** Whether there still is a unit to be started. */
    readonly hasUnit: boolean;
  }>;
  /**
   * Runs the agent of a system to see that it starts and takes the configuration; gives
   * false where the system has none. Throws HEALTH_FAILED.
   */
  prove(toplevel: string, signal?: AbortSignal): Promise<boolean>;
}

/** An operator's check, run once. Throws with what was expected and found. */
export type HealthProbe = (check: HealthCheck, signal?: AbortSignal) => Promise<void>;

/** One run of a program that this host's operator wants run around an activation. */
export interface HookRun {
  readonly command: readonly string[];
  /** What it is told, as environment variables, beside the environment of every child. */
  readonly variables: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
}

/** Runs a hook to its end. Throws HOOK_FAILED where that is not exit code 0 in time, INTERRUPTED. */
export type HookRunner = (run: HookRun, signal?: AbortSignal) => Promise<void>;

/** A server that lets so many hosts of a group reboot at a time (FleetLock protocol). */
export interface RebootLock {
  /** Asks for a slot. Throws REBOOT_REFUSED where there is none now. */
  take(): Promise<void>;
  /** Gives the slot back; also where none was held. */
  release(): Promise<void>;
}

/** Free space on the file systems that an update writes to. */
export interface Disk {
  /** Free bytes and an identity of the file system that holds `path` or its nearest parent. */
  freeSpace(path: string): Promise<{ free: number; fileSystem: string; total?: number }>;
}

/** One line for the log; `fields` are for machines. */
export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

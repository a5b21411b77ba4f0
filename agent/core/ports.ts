import type { PackageChange, SizedPath } from "./release/package-difference.ts";
import type * as z from "zod";
import type { FileFacts, MountFacts } from "./doctor/file-facts.ts";
import type { Route } from "./doctor/route.ts";
import type { ClockFacts } from "./doctor/time.ts";
import type { UnitFacts } from "./doctor/units.ts";
import type { PullError } from "./errors.ts";
import type { NarMember } from "./formats/archive-index.ts";
import type { ByteRange } from "./formats/byte-ranges.ts";
import type { HealthCheck } from "./formats/health-check.ts";
import type { Release } from "./formats/manifest.ts";
import type { NarInfo } from "./formats/narinfo.ts";
import type { PendingReport, ReportTarget } from "./formats/pending-report.ts";
import type { SecretKey } from "./formats/signing-key.ts";
import type { MirrorCredential } from "./settings/mirrors.ts";
import type { Confirmation } from "./schedule/confirmation.ts";
import type { Hold, HoldRead } from "./schedule/hold.ts";
import type { Delta } from "./transfer/delta.ts";
import type { StoreAccess } from "./transfer/store-access.ts";
import type { ActivationMode } from "./formats/manifest.ts";
import type { FailedSnippet, SwitchFacts } from "./update/switch-output.ts";
import type { UnitState } from "./update/unit-states.ts";
import type { HistoryEntry } from "./update/history-entry.ts";
import type { AgentRecord } from "./update/record.ts";

/**
 * The agent's outside world as interfaces. `effects/` has the real ones; tests put
 * fakes here and nowhere else.
 */

/** Tells the time; the only source of "now" for decisions. */
export interface Clock {
  now(): Date;
}

/** Waiting, and a clock that nobody sets. */
export interface Timers {
  /** Milliseconds of a steady clock: only differences mean anything. */
  steadyMs(): number;
  /** Waits so long. Throws INTERRUPTED once `signal` is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
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
   * Reads `channels/CHANNEL/releases/DIGEST.json`, an older release that is still supported, at
   * most `limits.manifestBytes` of it. Throws as `readManifest`.
   */
  readRelease(channel: string, digest: string, signal?: AbortSignal): Promise<Uint8Array>;

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
   * if a mirror never has parts. Throws as `readArchive`.
   */
  heldParts?(sha256: string): Promise<readonly ByteRange[] | null>;
}

/** A manifest as a mirror gave it, with what a conditional request needs. */
export interface CachedManifest {
  readonly bytes: Uint8Array;
  readonly validators: Validators;
}

/** What each mirror answered last. Nothing in it is believed without being verified again. */
export interface ManifestCache {
  get(mirror: string, channel: string): Promise<CachedManifest | null>;
  put(mirror: string, channel: string, manifest: CachedManifest): Promise<void>;
  drop(mirror: string, channel: string): Promise<void>;
  /** Writes what changed since the last time. */
  save(): Promise<void>;
}

/** Has the service manager notice if the service hangs. */
export interface Watchdog {
  /** Tells it that the service lives, as long as there are signs of that. Gives what ends it. */
  start(): () => void;
  /** A sign of life of the service's own work. */
  sign(): void;
  /** Does something whose life says nothing about the service's own work. */
  beside<T>(work: () => T): T;
  /** When an earlier service was ended because it hung; null, also the second time. */
  takeHang(): Promise<Date | null>;
}

/** Errors that no call throws: a library's callback did. */
export interface StrayErrors {
  /** Tells the listener that came last, until what this gives is called. */
  listen(listener: (error: PullError) => void): () => void;
}

/** How far a download is, in bytes of NARs and deltas. */
export interface FetchProgress {
  readonly received: number;
  /** Grows if a delta turns out to be useless and a whole NAR comes in its place. */
  readonly total: number;
}

/** What a fetch moved. */
export interface FetchSummary {
  readonly paths: number;
  /** Paths that the store lacked. */
  readonly newPaths: number;
  /** Bytes of NARs and deltas that were downloaded. */
  readonly bytesReceived: number;
  /** Paths that were made out of older ones. */
  readonly deltasUsed: number;
  /** Deltas that did not give what was signed, so that the path was downloaded whole. */
  readonly deltasFailed: number;
}

/** What bringing in a release would take. */
export interface FetchPreview extends Pick<FetchSummary, "paths" | "newPaths"> {
  /** Bytes to download, if nothing is staged yet. */
  readonly downloadBytes: number;
  /** Bytes by which the store would grow. */
  readonly storeBytes: number;
  /** Whether garbage is collected first, since the store has no room. */
  readonly collectsGarbage: boolean;
  /** Packages that change from the running system; null if nobody knows what runs. */
  readonly packages: readonly PackageChange[] | null;
}

/** Hears how each mirror served an archive: null if it served what was asked. */
export type ArchiveListener = (mirror: string, error: PullError | null) => void;

/** Hears, before a fetch throws, that the attempt brought something which the next goes on with. */
export type AdvanceListener = () => void;

/** Hears how many bytes of garbage were wanted to make room, and how many came. */
export type CollectionListener = (collection: {
  readonly wanted: number;
  readonly freed: number;
}) => Promise<void>;

/** Hears which files of a damaged path were not as they must be, by their names below it. */
export type MendListener = (path: string, files: readonly string[]) => void;

/** A store path that a release has and that could not be brought back from it. */
export interface FailedRepair {
  readonly path: string;
  readonly error: PullError;
}

/** Brings closures from the mirrors into the store. */
export interface ClosureFetch {
  /**
   * Brings a release's closure into the store; what an earlier attempt left is used. Throws
   * the MIRROR_ and ARCHIVE_ errors, DISK_FULL, IMPORT_FAILED, INTERRUPTED, …
   */
  fetch(
    release: Release,
    options: {
      signal?: AbortSignal | undefined;
      onArchiveRead?: ArchiveListener | undefined;
      onAdvance?: AdvanceListener | undefined;
      onCollected?: CollectionListener | undefined;
      /** Whether what the store has of it already is compared with its hashes. */
      verify?: boolean | undefined;
    },
  ): Promise<FetchSummary>;
  /**
   * Brings those of these paths that a release has back into the store; `damaged` are the valid
   * ones among them. A path that the release has and that cannot be brought back does not keep the
   * others from it: gives why, for each. Throws as `fetch` what concerns all of them.
   */
  repair(
    release: Pick<Release, "toplevel" | "closureSize" | "archive">,
    lost: { paths: readonly string[]; damaged: readonly string[] },
    options: {
      signal?: AbortSignal | undefined;
      onArchiveRead?: ArchiveListener | undefined;
      onMended?: MendListener | undefined;
    },
  ): Promise<readonly FailedRepair[]>;
  /** Says what `fetch` would move, and refuses as it would; writes nothing. */
  preview(release: Release, signal?: AbortSignal): Promise<FetchPreview>;
  /** Removes what attempts left that nothing will go on with. Throws the system's errors. */
  abandon(): Promise<void>;
}

/** The Nix store and profile of the host. */
export interface NixStore {
  /** The paths of a closure with their sizes, or null if it is not valid. Throws TOOL_MISSING, … */
  closureOf(toplevel: string): Promise<SizedPath[] | null>;

  /**
   * How Nix reaches the store, and whose signatures count there. Throws IO_FAILED if a daemon does
   * not answer, TOOL_MISSING, TOOL_TIMEOUT.
   */
  access(): Promise<StoreAccess>;

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

  /**
   * Has Nix delete what no root holds, until so many bytes are freed. Gives how many bytes the paths
   * had that it deleted; null if it does not say. Throws IO_FAILED, TOOL_MISSING, TOOL_TIMEOUT,
   * INTERRUPTED.
   */
  collectGarbage(bytes: number, signal?: AbortSignal): Promise<number | null>;

  /** `nix-env --profile … --set`: a new generation. Throws PROFILE_FAILED, … */
  setProfile(toplevel: string): Promise<void>;

  /**
   * Points the profile at an earlier generation again, or takes it away if there was
   * none (null); no generation is deleted. Throws PROFILE_FAILED, …
   */
  restoreProfile(generation: number | null): Promise<void>;

  /** The store path that the system profile points at, or null if there is none. */
  profileToplevel(): Promise<string | null>;

  /** Number of the profile's current generation, or null if there is none. */
  profileGeneration(): Promise<number | null>;

  /**
   * Generation `number` of the profile, or with null the newest one before the current whose
   * system is not passed over; null if there is no such generation.
   */
  findGeneration(
    number: number | null,
    isPassedOver?: (toplevel: string) => boolean,
  ): Promise<{ generation: number; toplevel: string } | null>;

  /** Deletes all but the newest `keep` generations; the current and the spared one always stay. */
  pruneGenerations(keep: number, spared?: number | null): Promise<void>;

  /** The systems whose generations would stay if `pruneGenerations` was called, and of the others. */
  splitGenerations(keep: number, spared?: number | null): Promise<Generations>;

  /**
   * Deletes the generations of a system that are newer than `since`, or than the current one; the
   * current one always stays.
   */
  forgetNewer(toplevel: string, since?: number): Promise<void>;

  /** The store path of the running system (`/run/current-system`), or null if it is unknown. */
  runningToplevel(): Promise<string | null>;

  /** That of the system that was booted (`/run/booted-system`), or null if it is unknown. */
  bootedToplevel(): Promise<string | null>;

  /** The real file behind a store path: other than the path itself in a chroot store. */
  realPath(storePath: string): string;
}

/** Finds damage in the store, and mends it. */
export interface StoreRepair {
  /** The closures of those of these paths that are valid. Throws TOOL_MISSING, … */
  closures(paths: readonly string[]): Promise<string[]>;

  /** Which of these valid paths are not even there. */
  absent(paths: readonly string[]): Promise<string[]>;

  /**
   * Which of these valid paths do not have the contents with which they were registered: reads all
   * of them. `onVerified` hears how many were read. Throws TOOL_TIMEOUT, INTERRUPTED, …
   */
  damaged(
    paths: readonly string[],
    options: {
      readonly signal?: AbortSignal | undefined;
      readonly onVerified?: ((count: number) => void) | undefined;
    },
  ): Promise<string[]>;

  /** The hash of the NAR with which each of these valid paths was registered. */
  registeredHashes(paths: readonly string[]): Promise<Map<string, string>>;

  /**
   * Gives valid paths their contents back from the binary cache in `directory`, file by file, each
   * by a rename, so that nothing that runs is taken away. No garbage is collected meanwhile. `onMended`
   * hears of each path that is whole again. Throws ARCHIVE_CORRUPT, IMPORT_FAILED, IO_FAILED,
   * DISK_FULL, TOOL_MISSING, TOOL_TIMEOUT, INTERRUPTED.
   */
  mend(
    directory: string,
    narInfos: readonly NarInfo[],
    options: {
      readonly signal?: AbortSignal | undefined;
      readonly onMended?: MendListener | undefined;
    },
  ): Promise<void>;
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
  /**
   * Keeps the JSON of an index, and which of its signatures were checked; an older one gives way.
   * Throws the system's errors.
   */
  keep(sha256: string, index: { json: Uint8Array; verified: Uint8Array }): Promise<void>;
  /** The last `verified` that was kept, which may be damaged, or null. */
  verified(): Promise<Uint8Array | null>;
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
   * is awaited instead of begun again, if it can still be found. A run that outlives
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

/** Systems of a profile's generations, by whether they are about to be deleted. */
export interface Generations {
  readonly staying: readonly string[];
  readonly leaving: readonly string[];
}

/** What of a system takes effect only with a boot, and the directory that a boot starts from. */
export interface BootDirectory {
  /**
   * Whether a system, its toplevel, differs from the booted one in kernel, initrd or kernel
   * modules. False if either has none: there is nothing to boot then.
   */
  needsReboot(toplevel: string): Promise<boolean>;
  /**
   * What the directory lacks for the system's kernel and initrd beside those of the generations
   * that stay, in bytes; null if there is enough, or no such directory. `free` includes what the
   * boot loader's installer removes before it copies.
   */
  missingSpace(
    toplevel: string,
    generations: Generations,
  ): Promise<{ directory: string; needed: number; free: number } | null>;
}

/** A system that is to be started once, while the proven one stays the boot default. */
export interface Trial {
  /** The system that is tried, its toplevel. */
  readonly toplevel: string;
  /** The system that every later boot starts. */
  readonly proven: string;
}

/** What a boot loader is, and what it can do. */
export interface BootLoaderFacts {
  /** Its name, or null if it is not known. */
  readonly name: string | null;
  /** Why it cannot start a system once; null if it can. */
  readonly cannotTry: string | null;
}

/** Where kernels are copied to. */
export interface KernelPlace {
  readonly directory: string;
  /** Whether the installer removes what no generation needs before it copies, or after. */
  readonly removesFirst: boolean;
}

/** The boot loader, beside what its installer in each system does. */
export interface BootLoader {
  look(): Promise<BootLoaderFacts>;
  /**
   * Has the next boot, and no later one, start a system whose entry the boot loader has
   * already; a trial that was set before is replaced. Gives null, or why it cannot: nothing is
   * set then. Throws BOOT_LOADER_FAILED, TOOL_MISSING, and the operating system's errors.
   */
  tryOnce(trial: Trial): Promise<string | null>;
  /** Whether the trial is still to come: the boot loader forgets it before it starts the system. */
  isTrialPending(): Promise<boolean>;
  /** Has the next boot start the default. Throws as `tryOnce`. */
  cancelTrial(): Promise<void>;
  /** Where its installer copies kernels to, or null if that is not known. */
  kernelPlace(): Promise<KernelPlace | null>;
}

/** What is wrong with the units of a host, as far as systemd shows it. */
export interface UnitTroubles {
  /** Units that are failed, or that wait to be started again after a failure; sorted. */
  readonly failed: readonly string[];
  /** How often systemd started a unit again by itself; units that it never restarted are left out. */
  readonly restarts: ReadonlyMap<string, number>;
}

/** The host's boots and units. */
export interface ServiceManager {
  /** Identity of this boot: another one means that everything that ran was cut off. */
  bootId(): Promise<string>;

  /** What is wrong with the units, or null if it cannot be known. */
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
  /** Has the agent's service start anew, if it runs; does not wait for it. */
  restartAgent(): Promise<void>;

  /** Whether a reboot can be had at all: not in a sandbox. */
  readonly canReboot: boolean;
  /**
   * Snippets of the activation script that failed when the running system was booted; null if
   * that cannot be seen.
   */
  failedInBoot(): Promise<readonly FailedSnippet[] | null>;

  /**
   * Who keeps the host from rebooting now, in words: programs that inhibit a shutdown and,
   * with `users`, everybody who is logged in.
   */
  rebootBlockers(options: { readonly users: boolean }): Promise<string[]>;
  /** Tells everybody who is logged in; that nobody can be told is no error. */
  warnUsers(message: string): Promise<void>;
  /**
   * Asks for a reboot; gives back before it comes. With `force` nobody can inhibit it. Throws
   * IO_FAILED, TOOL_TIMEOUT, …
   */
  reboot(options: { readonly force: boolean }): Promise<void>;
}

/** What stands in the files of a system, activated or not. */
export interface SystemContents {
  /** The switch inhibitors, by name; null for a system that has none. */
  inhibitors(toplevel: string): Promise<ReadonlyMap<string, string> | null>;
  /** The name by which its agent looks itself up in a release; null if it has none of its own. */
  name(toplevel: string): Promise<string | null>;
  /** Its specialisations: their own toplevels by name. */
  specialisations(toplevel: string): Promise<ReadonlyMap<string, string>>;
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

/** The agent that the system brings along, if it is another one than the one that runs. */
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
   * false if the system has none. Throws HEALTH_FAILED.
   */
  prove(toplevel: string, signal?: AbortSignal): Promise<boolean>;
}

/** An operator's check, run once. Throws a CheckFailure with what was expected and found. */
export type HealthProbe = (check: HealthCheck, signal?: AbortSignal) => Promise<void>;

/** One run of a program that this host's operator wants run around an activation. */
export interface HookRun {
  readonly command: readonly string[];
  /** What it is told, as environment variables, beside the environment of every child. */
  readonly variables: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
}

/** Runs a hook to its end. Throws HOOK_FAILED if that is not exit code 0 in time, INTERRUPTED. */
export type HookRunner = (run: HookRun, signal?: AbortSignal) => Promise<void>;

/** A server that lets so many hosts of a group reboot at a time (FleetLock protocol). */
export interface RebootLock {
  /** Asks for a slot. Throws REBOOT_REFUSED if there is none now. */
  take(): Promise<void>;
  /** Gives the slot back; also if none was held. */
  release(): Promise<void>;
}

/** What a file system has left. */
export interface FreeSpace {
  /** Free bytes, without those that are reserved for root. */
  readonly free: number;
  /** Its identity. */
  readonly fileSystem: string;
  readonly total?: number;
  /** Files and directories that it can hold; absent if it has no such limit, as btrfs. */
  readonly inodes?: { readonly free: number; readonly total: number };
}

/** Free space on the file systems that an update writes to. */
export interface Disk {
  /** What the file system has left that holds `path` or its nearest parent. */
  freeSpace(path: string): Promise<FreeSpace>;
}

/** What is left of the agent's record, and what is wrong with it. */
export interface Recollection {
  /** Null if nothing is left of a host that had something. */
  readonly record: AgentRecord | null;
  /** What was damaged or missing; empty if all is well. */
  readonly alarms: readonly PullError[];
}

/** The agent's record, kept so that no single loss forgets which releases were accepted. */
export interface StateStore {
  /** Makes the state directory, readable by its owner alone. Throws STATE_UNSAFE. */
  prepare(): Promise<void>;
  /** Removes files that were never finished; only for the holder of the update lock. */
  removeUnfinished(): Promise<void>;
  /**
   * Reads the record; what is damaged or missing is put together again from the other
   * copies. Throws only the operating system's errors.
   */
  recall(): Promise<Recollection>;
  /**
   * Reads the record and logs all that is wrong with it. Throws STATE_CORRUPT or STATE_LOST
   * if nothing is left of a host that had a history, unless `acceptLoss`.
   */
  load(options?: { acceptLoss?: boolean }): Promise<AgentRecord>;
  /** After `load`: writes again what was damaged or missing, and notes it in the history. */
  mend(record: AgentRecord, now: Date): Promise<void>;
  /** Writes the record, durably; gives how often it was written by now. */
  save(record: AgentRecord): Promise<number>;
}

/** What happened to this host: only ever added to, for people and for recovery. */
export interface HistoryStore {
  /** Adds an entry, durably. */
  append(entry: HistoryEntry): Promise<void>;
  /** All entries that are kept, oldest first. */
  read(): Promise<HistoryEntry[]>;
  /** The newest entry of an event, or null. */
  findLast(event: string): Promise<HistoryEntry | null>;
  /** The entries, newest first. Reads only as much as is taken. */
  newestFirst(): AsyncIterable<HistoryEntry>;
  /** Whether there ever was one. */
  exists(): Promise<boolean>;
}

/** Small files of the state directory, each with a checksum. */
export interface CheckedFiles {
  /** The file's value; null if it is missing, damaged or of another form. */
  read<T>(name: string, schema: z.ZodType<T>): Promise<T | null>;
  /** Writes it whole, durably. */
  write(name: string, value: unknown): Promise<void>;
}

/** What people decided about this host, as it lies in the state directory. */
export interface OperatorCommandFiles {
  readHold(): Promise<HoldRead>;
  /** Holds the host, in place of any hold before. */
  hold(hold: Hold): Promise<void>;
  /** Ends a hold, damaged or not; gives whether there was one. */
  unhold(): Promise<boolean>;
  /** The release that was confirmed last; null if none was, or the file is damaged. */
  readConfirmation(): Promise<Confirmation | null>;
  /** Confirms a release, in place of any that was confirmed before. */
  confirm(confirmation: Confirmation): Promise<void>;
}

/** `update`: only its holder changes the host. `agent`: only its holder is the service. */
export type LockName = "update" | "agent";

/** Locks between processes of this host; the kernel gives up those of a process that ended. */
export interface Locks {
  /** The file that a lock lies in, for messages. */
  fileOf(name: LockName): string;
  /** Takes a lock and gives what releases it; null if another process holds it. */
  take(name: LockName): Promise<(() => Promise<void>) | null>;
  /**
   * The id of the process that holds a lock; null if none does, or if that cannot be seen. Looks
   * only: a lock that was tried would be in the way of whoever needs it.
   */
  holder(name: LockName): Promise<number | null>;
}

/** How far a fetch is, as one process tells others of this host. */
export interface ToldProgress extends FetchProgress {
  /** The process that fetches. */
  readonly process: number;
  /** When it told this. */
  readonly at: string;
  /** Bytes a second; null if that is not known yet. */
  readonly rate: number | null;
}

/** What other processes of this host see of a fetch. */
export interface FetchSign {
  /** Tells how far this process is. It is for people: that it cannot be told is no error. */
  tell(progress: FetchProgress): void;
  /** What was told last, by whichever process; null if nothing was. */
  read(): Promise<ToldProgress | null>;
}

/** Tells when a mirror in a directory, such as a stick, has news. */
export interface StickWatch {
  /** True if there is nothing to watch. */
  readonly isIdle: boolean;
  /** Addresses of the mirrors that came or changed since the last look. */
  look(): Promise<string[]>;
}

/** Tells when somebody held, unheld or confirmed. */
export interface OperatorCommandsWatch {
  /** Takes what was commanded until now for known; whatever comes later is news. */
  look(): Promise<void>;
  /** Waits for news and gives true; gives false once `signal` is aborted. */
  untilNews(signal: AbortSignal): Promise<boolean>;
}

/** The newest report, kept until it was delivered everywhere. */
export interface ReportSpool {
  /** What has to be delivered still; null if nothing has, or the file is damaged. */
  read(): Promise<PendingReport | null>;
  /** Replaces it; one without targets is removed. */
  write(pending: PendingReport): Promise<void>;
}

/** Where this host's reports go, and what it tells of itself. */
export interface ReportOutlets {
  /**
   * Delivers a report to one place that the settings name. Throws MIRROR_STATUS,
   * MIRROR_UNREACHABLE, INTERRUPTED, … and the operating system's errors.
   */
  deliver(target: ReportTarget, envelope: string, signal?: AbortSignal): Promise<void>;
  /** Leaves a report on a stick, the mirror at this `file:` address. Throws the system's errors. */
  leaveOnStick(address: string, envelope: string): Promise<void>;
  /** Writes metrics to a file that a collector may read at any time. Throws the system's errors. */
  writeMetrics(path: string, text: string): Promise<void>;
  /** Serves metrics at HOST:PORT; gives what ends that. Throws the system's errors. */
  serveMetrics(address: string, metrics: () => Promise<string>): Promise<() => Promise<void>>;
  /**
   * Tells whoever may open a Unix socket what `answer` gives; gives what ends that. Throws
   * CONFIG_INVALID and the system's errors.
   */
  serveStatus(
    socket: { path: string; group: string | undefined },
    answer: () => Promise<string>,
  ): Promise<() => Promise<void>>;
}

/**
 * The key with which this host signs its reports; made if there is none. Throws KEY_INVALID
 * and the operating system's errors.
 */
export type HostKey = () => Promise<SecretKey>;

/** One line for the log; `fields` are for machines. */
export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

/**
 * What `doctor` looks at beside what the agent does anyway. All of it only looks: nothing on this host
 * or on a server is changed.
 */
export interface Examination {
  /** Whether this process may do everything on this host. */
  readonly isRoot: boolean;
  /**
   * The way to `file` below the address of a web server, step by step, with this host's credentials.
   * What is wrong there is in the steps. Nothing of the file is read.
   */
  route(address: string, file: string, signal: AbortSignal): Promise<Route>;
  /** Throws CREDENTIAL_UNREADABLE unless the TLS files of the settings are there and are PEM. */
  tlsFiles(): Promise<void>;
  /** The file that a credential is read from. */
  credentialFile(credential: MirrorCredential): string;
  /** What systemd says about the clock; null if it says nothing. */
  clock(): Promise<ClockFacts | null>;
  /** What systemd says about units; null if it does not manage this host's. Throws IO_FAILED, … */
  units(names: readonly string[]): Promise<UnitFacts[] | null>;
  /** What lies at a path, behind a link too; null if there is nothing. Throws the system's errors. */
  file(path: string): Promise<FileFacts | null>;
  /**
   * Throws STATE_UNSAFE unless a directory is as the agent wants its state directory; gives whether
   * there is one. Throws the system's errors.
   */
  expectPrivate(directory: string): Promise<boolean>;
  /** The mount that holds a path. Throws the system's errors. */
  mount(path: string): Promise<MountFacts | null>;
  /** Mount points in the table of file systems; none if there is no table. */
  fstab(): Promise<string[]>;
  /** The version of Nix as it says. Throws TOOL_MISSING, TOOL_TIMEOUT, IO_FAILED. */
  nixVersion(): Promise<string>;
}

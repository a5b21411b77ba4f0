import { existsSync, realpathSync } from "node:fs";
import { machine } from "node:os";
import { FEATURES } from "../core/formats/compatibility.ts";
import type { ClosureFetch, FetchProgress, Log, Mirror } from "../core/ports.ts";
import { PullError } from "../core/errors.ts";
import { bucketMirrorUrl } from "../core/formats/bucket-address.ts";
import { MIRROR_ADDRESS_RULE, parseMirrorAddress } from "../core/formats/mirror-address.ts";
import { DEFAULT_CONFIG_FILE, type Settings } from "../core/settings.ts";
import { childActivator } from "../effects/systemd/activator.ts";
import { deadlineOf } from "../effects/systemd/deadline.ts";
import { examinationOf } from "../effects/host/examination.ts";
import { fleetLock } from "../effects/host/fleet-lock.ts";
import { systemProbe } from "../effects/process/health-probe.ts";
import { processStrayErrors } from "../effects/process/stray-errors.ts";
import { systemHookRunner } from "../effects/process/hook-runner.ts";
import { sandboxManager, systemdManager } from "../effects/systemd/service-manager.ts";
import { systemContentsOf } from "../effects/systemd/system-contents.ts";
import { watchdogOf } from "../effects/systemd/watchdog.ts";
import { systemdActivator } from "../effects/systemd/systemd-activator.ts";
import { bootDirectoryOf } from "../effects/host/boot-links.ts";
import { bootLoaderOf, unknownLoader } from "../effects/boot/boot-loader.ts";
import { checkedFilesIn } from "../effects/files/checked-file.ts";
import { locksIn } from "../effects/process/process-lock.ts";
import { reportOutletsOf } from "../effects/report/report-outlets.ts";
import { DirectoryStickWatch } from "../effects/report/stick-watch.ts";
import { hostKey } from "../effects/state/host-key.ts";
import { operatorCommandFilesIn } from "../effects/state/operator-command-files.ts";
import { DirectoryCommandsWatch } from "../effects/state/operator-commands-watch.ts";
import { ReportSpoolFile } from "../effects/state/report-spool.ts";
import { storeRoot } from "../effects/nix/nix-environment.ts";
import { systemClock, systemTimers } from "../effects/host/clock.ts";
import { systemDisk } from "../effects/files/disk.ts";
import { gcRootsIn } from "../effects/nix/gc-roots.ts";
import { FetchSignFile } from "../effects/state/fetch-sign.ts";
import { History } from "../effects/state/history.ts";
import { successorOf } from "../effects/systemd/successor.ts";
import { readMachineId, systemHostname } from "../effects/host/machine-identity.ts";
import { IndexFiles } from "../effects/state/index-cache.ts";
import { ManifestCacheFile } from "../effects/state/manifest-cache.ts";
import { DirectoryMirror } from "../effects/mirror/directory-mirror.ts";
import { BucketSigner } from "../effects/mirror/bucket-signer.ts";
import { HttpMirror } from "../effects/mirror/http-mirror.ts";
import { deltaMaker } from "../effects/nix/delta-maker.ts";
import { applyIndexPatch } from "../effects/nix/index-patch.ts";
import { stagingIn } from "../effects/nix/staging.ts";
import { storeRepairOf } from "../effects/nix/store-repair.ts";
import { nixStoreOf } from "../effects/nix/nix-store.ts";
import { StateFile } from "../effects/state/state-file.ts";
import { keySourceOf } from "../effects/mirror/key-source.ts";
import { Pacer } from "../effects/mirror/transfer-rate.ts";
import { Transport } from "../effects/mirror/transport.ts";
import type { AgentTools } from "./agent-tools.ts";
import { fetchClosure, repairPaths } from "./fetch/fetch-closure.ts";
import { abandonImported } from "./fetch/imported-paths.ts";
import { previewFetch } from "./fetch/preview.ts";
import type { FetchTools } from "./fetch/tools.ts";
import { MirrorStandings } from "./poll/mirror-standings.ts";
import { VerifiedOffers } from "./poll/verified-offers.ts";

/** The mirrors of a configuration, in its order. */
export function mirrorsOf(
  settings: Pick<Settings, "mirrors" | "limits" | "tls" | "credentials">,
  transport = new Transport(settings),
): Mirror[] {
  const { limits, credentials } = settings;
  const pacer = new Pacer(limits.maxRate);
  return settings.mirrors.map((text) => {
    const address = parseMirrorAddress(text);
    switch (address?.kind) {
      case "directory":
        return new DirectoryMirror(text, limits);
      case "web":
        return new HttpMirror(text, { limits, transport, pacer, credential: credentials[text] });
      case "bucket": {
        const signer = new BucketSigner(address.bucket, keySourceOf(credentials[text]));
        const bucket = { url: bucketMirrorUrl(address.bucket), signer };
        return new HttpMirror(text, { limits, transport, pacer, bucket });
      }
      case undefined:
        throw new PullError("CONFIG_INVALID", `mirrors: expected ${MIRROR_ADDRESS_RULE}`);
      default:
        return address satisfies never;
    }
  });
}

export interface ComposeOptions {
  readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
  /** Whether systemd starts this process again when it ends. */
  readonly isService?: boolean;
  /** Where the settings came from. */
  readonly configFile?: string | undefined;
}

/** Makes the real effects: the only place in host/ that does. */
export function composeTools(
  settings: Settings,
  log: Log,
  { onProgress, isService = false, configFile = DEFAULT_CONFIG_FILE }: ComposeOptions = {},
): AgentTools {
  const stateDirectory = settings.paths.state;
  const store = nixStoreOf(settings);
  const repair = storeRepairOf(settings);
  const managed = isManaged(settings);
  const bootLoader = managed ? bootLoaderOf(settings) : unknownLoader(settings.paths.boot);
  const transport = new Transport(settings);
  const mirrors = mirrorsOf(settings, transport);
  const standings = new MirrorStandings();
  const roots = gcRootsIn(settings.paths.gcRoots);
  const { fleetLock: fleetLockSettings } = settings.reboot;
  const fetchSign = new FetchSignFile(settings.paths.runtime);
  const ownProgram = [process.execPath, realpathSync(process.argv[1] ?? "")];
  return {
    ...{ settings, mirrors, standings },
    offers: new VerifiedOffers(),
    closeConnections: () => transport.close(),
    strayErrors: processStrayErrors,
    watchdog: watchdogOf({ stateDirectory, log }),
    cache: new ManifestCacheFile(stateDirectory),
    ...{ store, repair },
    roots,
    activator: managed ? systemdActivator(settings, log) : childActivator(settings, store, log),
    services: managed ? systemdManager : sandboxManager,
    systems: systemContentsOf(store),
    probe: systemProbe,
    runHook: systemHookRunner,
    rebootLock: fleetLockSettings
      ? fleetLock(
          { ...fleetLockSettings, id: fleetLockSettings.id ?? settings.hostname },
          // Another server than the mirrors: it gets no certificate of theirs.
          () => transport.dispatcher({ identified: false }),
        )
      : null,
    ownProgram,
    deadline: deadlineOf(settings, ownProgram),
    successor: successorOf(settings, { configFile, store, managed }),
    isService,
    disk: systemDisk,
    examination: examinationOf(settings, { transport, managed }),
    boot: bootDirectoryOf(settings, store, bootLoader),
    bootLoader,
    fetchSign,
    closures: closureFetchOf({
      ...{ settings, mirrors, standings, store, repair, roots, log },
      onProgress(progress) {
        fetchSign.tell(progress);
        onProgress?.(progress);
      },
      disk: systemDisk,
      staging: stagingIn(settings.paths.staging),
      indexes: new IndexFiles(stateDirectory),
      applyIndexPatch,
      deltas: deltaMaker(settings.limits),
    }),
    clock: systemClock,
    timers: systemTimers,
    hostname: () => (settings.isNamedBySystem ? systemHostname() : settings.hostname),
    machineId: () => readMachineId(settings.paths.machineId),
    machine: machine(),
    features: FEATURES,
    random: Math.random,
    log,
    ...stateToolsOf(settings, log),
    outlets: reportOutletsOf(settings),
  };
}

/** What reads and writes files of the state directory. */
function stateToolsOf(
  settings: Settings,
  log: Log,
): Pick<
  AgentTools,
  | "state"
  | "history"
  | "files"
  | "locks"
  | "commands"
  | "sticks"
  | "commandsWatch"
  | "hostKey"
  | "spool"
> {
  const { paths, mirrors, channel, hostname } = settings;
  const history = new History(paths.state);
  return {
    state: new StateFile(
      // On the store's disk: the state directory's may be lost by itself.
      { ...paths, memories: `${paths.gcRoots}.trust.json` },
      { history, log, machineId: () => readMachineId(paths.machineId) },
    ),
    history,
    files: checkedFilesIn(paths.state),
    locks: locksIn(paths.state),
    commands: operatorCommandFilesIn(paths.state),
    sticks: new DirectoryStickWatch(mirrors, channel),
    commandsWatch: new DirectoryCommandsWatch(paths.state),
    hostKey: () => hostKey(paths.state, hostname),
    spool: new ReportSpoolFile(paths.state),
  };
}

/** The fetch as the rest of the host sees it. */
function closureFetchOf(given: Omit<FetchTools, "furthest">): ClosureFetch {
  const tools: FetchTools = { ...given, furthest: new Map() };
  return {
    fetch: (release, { signal, verify, ...listeners }) =>
      fetchClosure(release, { ...tools, ...listeners }, { signal, verify }),
    repair: (release, lost, { signal, ...listeners }) =>
      repairPaths(release, lost, { ...tools, ...listeners }, signal),
    preview: (release, signal) => previewFetch(release, tools, signal),
    async abandon() {
      await abandonImported(tools);
      await tools.staging.remove();
    },
  };
}

/** Whether systemd runs here and the host's own store is meant (sd_booted(3)). */
function isManaged({ activation, store }: Settings): boolean {
  if (activation.runner !== "auto") return activation.runner === "systemd";
  return existsSync("/run/systemd/system") && storeRoot(store) === null;
}

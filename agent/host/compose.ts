import { existsSync, realpathSync } from "node:fs";
import type { Log, Mirror } from "../core/ports.ts";
import { DEFAULT_CONFIG_FILE, type Settings } from "../core/settings.ts";
import { childActivator } from "../effects/systemd/activator.ts";
import { deadlineOf } from "../effects/systemd/deadline.ts";
import { fleetLock } from "../effects/host/fleet-lock.ts";
import { systemProbe } from "../effects/process/health-probe.ts";
import { systemHookRunner } from "../effects/process/hook-runner.ts";
import { sandboxManager, systemdManager } from "../effects/systemd/service-manager.ts";
import { systemdActivator } from "../effects/systemd/systemd-activator.ts";
import { storeRoot } from "../effects/nix/nix-environment.ts";
import { systemClock } from "../effects/host/clock.ts";
import { systemDisk } from "../effects/files/disk.ts";
import { gcRootsIn } from "../effects/nix/gc-roots.ts";
import { History } from "../effects/state/history.ts";
import { successorOf } from "../effects/systemd/successor.ts";
import { readMachineId } from "../effects/host/machine-identity.ts";
import { IndexFiles } from "../effects/state/index-cache.ts";
import { ManifestCache } from "../effects/state/manifest-cache.ts";
import { DirectoryMirror } from "../effects/mirror/directory-mirror.ts";
import { HttpMirror } from "../effects/mirror/http-mirror.ts";
import { deltaMaker } from "../effects/nix/delta-maker.ts";
import { applyIndexPatch } from "../effects/nix/index-patch.ts";
import { stagingIn } from "../effects/nix/staging.ts";
import { nixStoreOf } from "../effects/nix/nix-store.ts";
import { StateFile } from "../effects/state/state-file.ts";
import { Pacer } from "../effects/mirror/transfer-rate.ts";
import { Transport } from "../effects/mirror/transport.ts";
import type { AgentTools } from "./agent.ts";
import type { FetchProgress } from "./fetch/tools.ts";

/** The mirrors of a configuration, in its order. */
export function mirrorsOf(
  settings: Pick<Settings, "mirrors" | "limits" | "tls" | "credentials">,
  transport = new Transport(settings),
): Mirror[] {
  const { limits, credentials } = settings;
  const pacer = new Pacer(limits.maxRate);
  return settings.mirrors.map((address) =>
    new URL(address).protocol === "file:"
      ? new DirectoryMirror(address, limits)
      : new HttpMirror(address, { limits, transport, pacer, credential: credentials[address] }),
  );
}

export interface ComposeOptions {
  readonly onProgress?: ((progress: FetchProgress) => void) | undefined;
  /** Whether systemd starts this process again when it ends. */
  readonly isService?: boolean;
  /** Where the settings came from. */
  readonly configFile?: string | undefined;
}

/** Puts the real effects together: the only place that does. */
export function composeTools(
  settings: Settings,
  log: Log,
  { onProgress, isService = false, configFile = DEFAULT_CONFIG_FILE }: ComposeOptions = {},
): AgentTools {
  const store = nixStoreOf(settings);
  const history = new History(settings.paths.state);
  const managed = isManaged(settings);
  const transport = new Transport(settings);
  const { fleetLock: fleetLockSettings } = settings.reboot;
  const ownProgram = [process.execPath, realpathSync(process.argv[1] ?? "")];
  return {
    settings,
    mirrors: mirrorsOf(settings, transport),
    cache: new ManifestCache(settings.paths.state),
    store,
    roots: gcRootsIn(settings.paths.gcRoots),
    activator: managed ? systemdActivator(settings, log) : childActivator(settings, store, log),
    services: managed ? systemdManager : sandboxManager,
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
    staging: stagingIn(settings.paths.staging),
    indexes: new IndexFiles(settings.paths.state),
    applyIndexPatch,
    deltas: deltaMaker(settings.limits),
    clock: systemClock,
    machineId: () => readMachineId(settings.paths.machineId),
    random: Math.random,
    log,
    state: new StateFile(
      // On the store's disk: the state directory's may be lost by itself.
      { ...settings.paths, memories: `${settings.paths.gcRoots}.trust.json` },
      history,
      log,
    ),
    history,
    onProgress,
  };
}

/** Whether systemd runs here and the host's own store is meant (sd_booted(3)). */
function isManaged({ activation, store }: Settings): boolean {
  if (activation.runner !== "auto") return activation.runner === "systemd";
  return existsSync("/run/systemd/system") && storeRoot(store) === null;
}

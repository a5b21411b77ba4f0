import { existsSync, realpathSync } from "node:fs";
import type { Log, Mirror } from "../core/ports.ts";
import type { Settings } from "../core/settings.ts";
import { childActivator } from "../effects/activator.ts";
import { deadlineCommand } from "../effects/deadline-command.ts";
import { fleetLock } from "../effects/fleet-lock.ts";
import { systemProbe } from "../effects/health-probe.ts";
import { sandboxManager, systemdManager } from "../effects/service-manager.ts";
import { systemdActivator } from "../effects/systemd-activator.ts";
import { storeRoot } from "../effects/nix-environment.ts";
import { systemClock } from "../effects/clock.ts";
import { systemDisk } from "../effects/disk.ts";
import { gcRootsIn } from "../effects/gc-roots.ts";
import { History } from "../effects/history.ts";
import { ManifestCache } from "../effects/manifest-cache.ts";
import { DirectoryMirror } from "../effects/mirror-directory.ts";
import { HttpMirror, httpDispatcher } from "../effects/mirror-http.ts";
import { nixStoreOf } from "../effects/nix-store.ts";
import { StateFile } from "../effects/state-file.ts";
import type { AgentTools } from "./agent.ts";
import type { FetchProgress } from "./closure-fetch.ts";

/** The mirrors of a configuration, in its order. */
export function mirrorsOf(addresses: readonly string[], limits: Settings["limits"]): Mirror[] {
  const dispatcher = httpDispatcher(limits);
  return addresses.map((address) =>
    address.startsWith("file:")
      ? new DirectoryMirror(address, limits)
      : new HttpMirror(address, limits, dispatcher),
  );
}

/** Puts the real effects together: the only place that does. */
export function composeTools(
  settings: Settings,
  log: Log,
  onProgress?: (progress: FetchProgress) => void,
): AgentTools {
  const store = nixStoreOf(settings);
  const history = new History(settings.paths.state);
  const managed = isManaged(settings);
  const { fleetLock: fleetLockSettings } = settings.reboot;
  const ownProgram = [process.execPath, realpathSync(process.argv[1] ?? "")];
  return {
    settings,
    mirrors: mirrorsOf(settings.mirrors, settings.limits),
    cache: new ManifestCache(settings.paths.state),
    store,
    roots: gcRootsIn(settings.paths.gcRoots),
    activator: managed ? systemdActivator(settings, log) : childActivator(settings, store, log),
    services: managed ? systemdManager : sandboxManager,
    probe: systemProbe,
    rebootLock: fleetLockSettings
      ? fleetLock(
          { ...fleetLockSettings, id: fleetLockSettings.id ?? settings.hostname },
          httpDispatcher(settings.limits),
        )
      : null,
    ownProgram,
    deadlineCommand: (digest) => deadlineCommand(settings, ownProgram, digest),
    disk: systemDisk,
    clock: systemClock,
    random: Math.random,
    log,
    state: new StateFile(settings.paths.state, history, log),
    history,
    onProgress,
  };
}

/** Whether systemd runs here and the host's own store is meant (sd_booted(3)). */
function isManaged({ activation, store }: Settings): boolean {
  if (activation.runner !== "auto") return activation.runner === "systemd";
  return existsSync("/run/systemd/system") && storeRoot(store) === null;
}

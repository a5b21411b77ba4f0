import type { Log, Mirror } from "../core/ports.ts";
import type { Settings } from "../core/settings.ts";
import { childActivator } from "../effects/activator.ts";
import { systemClock } from "../effects/clock.ts";
import { systemDisk } from "../effects/disk.ts";
import { gcRootsIn } from "../effects/gc-roots.ts";
import { History } from "../effects/history.ts";
import { readMachineId } from "../effects/machine-identity.ts";
import { ManifestCache } from "../effects/manifest-cache.ts";
import { DirectoryMirror } from "../effects/mirror-directory.ts";
import { HttpMirror } from "../effects/mirror-http.ts";
import { nixStoreOf } from "../effects/nix-store.ts";
import { StateFile } from "../effects/state-file.ts";
import { Pacer } from "../effects/transfer-rate.ts";
import { Transport } from "../effects/transport.ts";
import type { AgentTools } from "./agent.ts";
import type { FetchProgress } from "./closure-fetch.ts";

/** The mirrors of a configuration, in its order. */
export function mirrorsOf(
  settings: Pick<Settings, "mirrors" | "limits" | "tls" | "credentials">,
): Mirror[] {
  const { limits, credentials } = settings;
  const transport = new Transport(settings);
  const pacer = new Pacer(limits.maxRate);
  return settings.mirrors.map((address) =>
    new URL(address).protocol === "file:"
      ? new DirectoryMirror(address, limits)
      : new HttpMirror(address, { limits, transport, pacer, credential: credentials[address] }),
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
  return {
    settings,
    mirrors: mirrorsOf(settings),
    cache: new ManifestCache(settings.paths.state),
    store,
    roots: gcRootsIn(settings.paths.gcRoots),
    activator: childActivator(settings, store, log),
    disk: systemDisk,
    clock: systemClock,
    machineId: () => readMachineId(settings.paths.machineId),
    random: Math.random,
    log,
    state: new StateFile(
      settings.paths.state,
      history,
      log,
      // On the store's disk: the state directory's may be lost by itself.
      `${settings.paths.gcRoots}.trust.json`,
    ),
    history,
    onProgress,
  };
}

import type { Log, Mirror } from "../core/ports.ts";
import type { Settings } from "../core/settings.ts";
import { childActivator } from "../effects/activator.ts";
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
    new URL(address).protocol === "file:"
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
  return {
    settings,
    mirrors: mirrorsOf(settings.mirrors, settings.limits),
    cache: new ManifestCache(settings.paths.state),
    store,
    roots: gcRootsIn(settings.paths.gcRoots),
    activator: childActivator(settings, store, log),
    disk: systemDisk,
    clock: systemClock,
    random: Math.random,
    log,
    state: new StateFile(settings.paths.state, history, log),
    history,
    onProgress,
  };
}

import {
  activationOf,
  entryOf,
  type Activation,
  type ActivationMode,
  type HostEntry,
  type Manifest,
} from "../../core/formats/manifest.ts";
import type { PublishedHost } from "../channel/published-release.ts";
import { keptHold } from "../channel/rollout-request.ts";
import type { HostFailure } from "./host-failure.ts";
import type { HostSpec } from "./host-spec.ts";
import type { PublishOptions } from "./publish-options.ts";

/**
 * The entries of a new release: those that it keeps, those of hosts that failed as they were, and
 * one for each host that was packed.
 */
export function hostEntries(
  {
    hosts,
    failed,
    mode,
    refresh,
    keepHosts,
  }: Pick<PublishOptions, "hosts" | "failed" | "mode" | "refresh" | "keepHosts">,
  current: Manifest | null,
  packed: Readonly<Record<string, PublishedHost>>,
): Record<string, HostEntry> {
  if (refresh) return { ...current?.hosts };
  const kept = keepHosts ? { ...current?.hosts } : keptOf(failed, current);
  const entries = current ? keptEntries({ ...current, hosts: kept }, mode) : {};
  for (const spec of hosts) {
    const host = packed[spec.hostname];
    const before = current ? entryOf(current, spec.hostname) : undefined;
    if (host) entries[spec.hostname] = newEntry(spec, host, { byDefault: mode, before });
  }
  return entries;
}

/** What the current release has for hosts that failed. */
export function keptOf(
  failed: readonly HostFailure[],
  current: Manifest | null,
): Record<string, HostEntry> {
  return Object.fromEntries(
    failed.flatMap(({ hostname }) => {
      const entry = current && entryOf(current, hostname);
      return entry ? [[hostname, entry]] : [];
    }),
  );
}

/** The current release's entries, each with the activation that it has there. */
function keptEntries(current: Manifest, byDefault: ActivationMode): Record<string, HostEntry> {
  return Object.fromEntries(
    Object.entries(current.hosts).map(([hostname, entry]) => [
      hostname,
      { ...entry, ...ownActivation(activationOf(current, entry), byDefault) },
    ]),
  );
}

/** The keys of an object that have a value. */
function definedOf<T extends object>(object: T): { [Key in keyof T]?: Exclude<T[Key], undefined> } {
  const entries = Object.entries(object).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [Key in keyof T]?: Exclude<T[Key], undefined> };
}

function newEntry(
  { hostname: _, source: __, activation, ...own }: HostSpec,
  { toplevel, closureSize, archive, mode, platform }: PublishedHost,
  { byDefault, before }: { byDefault: ActivationMode; before: HostEntry | undefined },
): HostEntry {
  return {
    ...{ toplevel, closureSize, archive, ...(platform !== null && { platform }) },
    ...ownActivation(definedOf({ ...activation, mode }) as Activation, byDefault),
    // All that the operator says of the host, so that a further key is not lost here.
    ...definedOf({ ...own, groups: own.groups && [...own.groups] }),
    ...keptHold(before),
  };
}

/** What an entry has to say of its activation if the release's default is `byDefault`. */
function ownActivation(
  activation: Activation,
  byDefault: ActivationMode,
): Pick<HostEntry, "activation"> {
  const { mode, ...others } = activation;
  return mode === byDefault && Object.keys(others).length === 0 ? {} : { activation };
}

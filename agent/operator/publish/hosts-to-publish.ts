import { PullError } from "../../core/errors.ts";
import type { Manifest } from "../../core/formats/manifest.ts";
import { checkWaves, checkWaveHosts } from "../channel/rollout-request.ts";
import { keptOf } from "./host-entries.ts";
import { buildFailed, type HostsInFile } from "./host-failure.ts";
import type { HostSpec } from "./host-spec.ts";
import type { PublishOptions, PublishRequest } from "./publish-options.ts";

/**
 * The hosts that a release is asked for, with what the operator says of them beside. Every name is
 * checked as soon as it can be known: before anything is evaluated, if there is no hosts file, and
 * else before its hosts are. `current` is the release in force. Throws USAGE, PUBLISH_FAILED,
 * BUILD_FAILED, NOT_A_SYSTEM, and what reading the hosts throws.
 */
export async function hostsToPublish(
  request: PublishRequest,
  current: Manifest | null,
): Promise<Pick<PublishOptions, "hosts" | "failed">> {
  const { hosts: named, readHosts, refresh, keepGoing } = request;
  const names = named.map(({ hostname }) => hostname);
  let found: HostsInFile = { hosts: [], failed: [] };
  if (readHosts) {
    expectOnce(names);
    found = await readHosts((inFile) => {
      expectNames([...inFile, ...names], request, current);
    });
  }
  const { failed } = found;
  const hosts = withPolicies([...found.hosts, ...named], request);
  const all = [...failed, ...hosts].map(({ hostname }) => hostname);
  if (!refresh && all.length === 0) {
    throw new PullError("USAGE", request.readHosts ? NONE_PUBLISHED : NO_HOSTS);
  }
  expectNames(all, request, current);
  if (failed.length > 0 && (!keepGoing || hosts.length === 0)) {
    throw buildFailed(failed, all.length);
  }
  checkWaves(request.rollout.waves, {
    ...keptHosts(request, current),
    ...keptOf(failed, current),
    ...Object.fromEntries(hosts.map((spec) => [spec.hostname, spec])),
  });
  return { hosts, failed };
}

const NO_HOSTS = "expected at least one host: --flake FLAKE, --host NAME=SOURCE or --hosts FILE";

const NONE_PUBLISHED =
  "expected at least one host to publish, found none: those that were chosen leave themselves out " +
  "(`publish = false`, or `services.nixos-pull.release.publish = false`)";

/** Throws USAGE for hosts where none may be, or if there is none. */
export function expectSomeHosts({ hosts, readHosts, refresh }: PublishRequest): void {
  const isNone = hosts.length === 0 && !readHosts;
  if (refresh && !isNone) {
    throw new PullError("USAGE", "expected no hosts with --refresh: it changes no system");
  }
  if (!refresh && isNone) throw new PullError("USAGE", NO_HOSTS);
}

/** Throws USAGE for a name that comes twice, and for one that an option has and the release lacks. */
function expectNames(
  names: readonly string[],
  request: PublishRequest,
  current: Manifest | null,
): void {
  expectOnce(names);
  const known = new Set(names);
  const options = [
    ["--group", request.groups.keys()],
    ["--specialisation", request.specialisations.keys()],
    ["--allow-without-agent", request.allowWithoutAgent],
    ["--allow-platform", request.allowPlatform],
  ] as const;
  for (const [option, hostnames] of options) {
    for (const hostname of hostnames) {
      if (known.has(hostname)) continue;
      const message = `${option}: expected a host that is published, found ${hostname}`;
      throw new PullError("USAGE", message);
    }
  }
  const kept = Object.keys(keptHosts(request, current));
  checkWaveHosts(request.rollout.waves, new Set([...names, ...kept]));
}

function expectOnce(names: readonly string[]): void {
  const seen = new Set<string>();
  for (const hostname of names) {
    if (seen.has(hostname)) {
      const message = `expected each host once, found ${hostname} twice`;
      throw new PullError("USAGE", message);
    }
    seen.add(hostname);
  }
}

/** The hosts of the release in force that the new one keeps, whatever is published. */
function keptHosts(
  { keepHosts, refresh }: PublishRequest,
  current: Manifest | null,
): Manifest["hosts"] {
  return keepHosts || refresh ? (current?.hosts ?? {}) : {};
}

/** The hosts with the groups and specialisations that the command line gives them. */
function withPolicies(
  hosts: readonly HostSpec[],
  { groups, specialisations }: PublishRequest,
): HostSpec[] {
  return hosts.map((spec) => {
    const more = groups.get(spec.hostname);
    const specialisation = specialisations.get(spec.hostname);
    return {
      ...spec,
      ...(more && { groups: [...new Set([...(spec.groups ?? []), ...more])] }),
      ...(specialisation !== undefined && { activation: { ...spec.activation, specialisation } }),
    };
  });
}

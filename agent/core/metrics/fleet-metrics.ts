import { STANDINGS, type Fleet, type FleetHost } from "../fleet/fleet.ts";
import { exposition, secondsOf, type MetricFamily, type Sample } from "./prometheus.ts";

/**
 * The fleet as metrics, for the machine that has the reports. Longer than other functions: it is
 * a list with one entry for each metric.
 */
export function fleetMetrics(fleet: Fleet): string {
  const { hosts, counts, targets } = fleet;
  const perHost = (
    name: string,
    help: string,
    value: (host: FleetHost) => number | null,
  ): MetricFamily => ({
    ...{ name, help, type: "gauge" },
    samples: hosts.flatMap((host): Sample[] => {
      const found = value(host);
      return found === null ? [] : [{ labels: { host: host.hostname }, value: found }];
    }),
  });
  const perTarget = (
    name: string,
    help: string,
    value: (target: Fleet["targets"][number]) => number | null,
  ): MetricFamily => ({
    ...{ name, help, type: "gauge" },
    samples: targets.flatMap((target): Sample[] => {
      const found = value(target);
      return found === null ? [] : [{ labels: { channel: target.channel }, value: found }];
    }),
  });
  return exposition([
    {
      name: "nixos_pull_fleet_hosts",
      type: "gauge",
      help: "Hosts by how they are doing.",
      samples: STANDINGS.map((standing) => ({ labels: { standing }, value: counts[standing] })),
    },
    perTarget(
      "nixos_pull_fleet_release_sequence",
      "Sequence number of the release that a channel's hosts are to become.",
      ({ position }) => position.sequence,
    ),
    perTarget(
      "nixos_pull_fleet_release_expires_timestamp_seconds",
      "When that release expires.",
      ({ expiresAt }) => secondsOf(expiresAt),
    ),
    perTarget(
      "nixos_pull_fleet_release_hosts",
      "Hosts that are to run that release.",
      (target) => target.hosts,
    ),
    perTarget(
      "nixos_pull_fleet_release_hosts_on_target",
      "Hosts that run that release.",
      (target) => target.onTarget,
    ),
    {
      name: "nixos_pull_fleet_host_info",
      type: "gauge",
      help: "A host's channel, how it is doing and its reason code, if any; always 1.",
      samples: hosts.map(({ hostname, channel, standing, code }) => ({
        labels: { host: hostname, channel: channel ?? "", standing, code: code ?? "" },
        value: 1,
      })),
    },
    perHost(
      "nixos_pull_fleet_host_report_timestamp_seconds",
      "When the host last reported, by its own clock.",
      ({ lastSeen }) => secondsOf(lastSeen),
    ),
    perHost(
      "nixos_pull_fleet_host_release_sequence",
      "Sequence number of the release that the host last became.",
      ({ release }) => release,
    ),
    perHost("nixos_pull_fleet_host_on_target", "Whether the host runs what it should.", (host) =>
      host.onTarget === null ? null : Number(host.onTarget),
    ),
    perHost("nixos_pull_fleet_host_reboot_needed", "Whether the host needs a reboot.", (host) =>
      host.lastSeen === null ? null : Number(host.rebootNeeded),
    ),
    perHost("nixos_pull_fleet_host_drifted", "Whether somebody changed it by hand.", (host) =>
      host.lastSeen === null ? null : Number(host.drifted),
    ),
    perHost(
      "nixos_pull_fleet_host_store_free_bytes",
      "Free space of the host's store.",
      ({ disk }) => disk?.free ?? null,
    ),
    perHost(
      "nixos_pull_fleet_host_store_size_bytes",
      "Size of the file system of the host's store.",
      ({ disk }) => disk?.total ?? null,
    ),
  ]);
}

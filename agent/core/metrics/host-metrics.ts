import type { AgentCounters } from "./counters.ts";
import { WAIT_REASONS } from "../schedule/waiting.ts";
import { stateSchema } from "../update/states.ts";
import { exposition, secondsOf, single, type MetricFamily } from "./prometheus.ts";
import type { Report } from "../formats/report.ts";

const STATE_NAMES = stateSchema.options.map((option) => option.shape.name.value);

const flag = (value: boolean): number => (value ? 1 : 0);

/** What this host is, as metrics: what its report says, and what the agent counted. */
export function hostMetrics(report: Report, counters: AgentCounters): string {
  return exposition(families(report, counters));
}

/** Longer than other functions: it is a list with one entry for each metric. */
function families(report: Report, counters: AgentCounters): MetricFamily[] {
  const { release, accepted, lastPoll, disk, waits = [] } = report;
  return [
    {
      name: "nixos_pull_build_info",
      type: "gauge",
      help: "The agent; always 1.",
      samples: [{ labels: { version: report.agentVersion }, value: 1 }],
    },
    {
      name: "nixos_pull_host_info",
      type: "gauge",
      help: "Who this host is in releases; always 1.",
      samples: [{ labels: { hostname: report.hostname, channel: report.channel }, value: 1 }],
    },
    {
      name: "nixos_pull_release_info",
      type: "gauge",
      help: "The release that this host last became; always 1.",
      samples: release
        ? [{ labels: { digest: release.digest, toplevel: release.toplevel }, value: 1 }]
        : [],
    },
    single(
      "nixos_pull_release_sequence",
      "gauge",
      "Sequence number of the release that this host last became.",
      release?.sequence,
    ),
    single(
      "nixos_pull_release_committed_timestamp_seconds",
      "gauge",
      "When this host became its release.",
      secondsOf(release?.committedAt),
    ),
    single(
      "nixos_pull_accepted_sequence",
      "gauge",
      "Highest sequence number ever accepted in the accepted epoch.",
      accepted?.sequence,
    ),
    single("nixos_pull_accepted_epoch", "gauge", "Highest epoch ever accepted.", accepted?.epoch),
    {
      name: "nixos_pull_state",
      type: "gauge",
      help: "The agent's state: 1 for the current one.",
      samples: STATE_NAMES.map((state) => ({
        labels: { state },
        value: flag(state === report.state),
      })),
    },
    single(
      "nixos_pull_failing",
      "gauge",
      "Whether something is wrong: 1 with a code in nixos_pull_error_info.",
      flag(report.code !== null),
    ),
    {
      name: "nixos_pull_error_info",
      type: "gauge",
      help: "What is wrong, by reason code; absent where nothing is, else 1.",
      samples: report.code === null ? [] : [{ labels: { code: report.code }, value: 1 }],
    },
    {
      name: "nixos_pull_waiting",
      type: "gauge",
      help: "What an accepted release waits for: 1 for each reason that holds.",
      samples: WAIT_REASONS.map((reason) => ({
        labels: { reason },
        value: flag(waits.some((wait) => wait.reason === reason)),
      })),
    },
    single(
      "nixos_pull_reboot_needed",
      "gauge",
      "Whether the release is complete only after a reboot.",
      flag(report.pendingReboot !== undefined || (release?.rebootNeeded ?? false)),
    ),
    single(
      "nixos_pull_drifted",
      "gauge",
      "Whether somebody changed this host by hand.",
      flag(report.drift !== undefined),
    ),
    single(
      "nixos_pull_store_free_bytes",
      "gauge",
      "Free space of the store's file system.",
      disk?.free,
    ),
    single("nixos_pull_store_size_bytes", "gauge", "Size of the store's file system.", disk?.total),
    single(
      "nixos_pull_last_poll_timestamp_seconds",
      "gauge",
      "When the mirrors were last asked.",
      secondsOf(lastPoll?.at),
    ),
    single(
      "nixos_pull_report_timestamp_seconds",
      "gauge",
      "When these values were found.",
      secondsOf(report.at),
    ),
    single(
      "nixos_pull_polls_total",
      "counter",
      "Polls since the state directory was made.",
      counters.polls,
    ),
    single(
      "nixos_pull_poll_failures_total",
      "counter",
      "Polls that came to nothing because something was wrong.",
      counters.pollFailures,
    ),
    single(
      "nixos_pull_updates_total",
      "counter",
      "Releases that this host became.",
      counters.updates,
    ),
  ];
}

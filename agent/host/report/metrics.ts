import { toPullError } from "../../core/errors.ts";
import { hostMetrics } from "../../core/metrics/host-metrics.ts";
import type { AgentTools } from "../agent-tools.ts";
import { readCounters } from "../poll/poll-report.ts";
import { makeReport, type ReportTools } from "./host-report.ts";

/** What telling the metrics takes. */
export type MetricsTools = ReportTools & Pick<AgentTools, "outlets" | "log" | "watchdog">;

/** This host's metrics as text, from disk alone. */
async function readHostMetrics(tools: MetricsTools): Promise<string> {
  const [report, counters] = await Promise.all([makeReport(tools), readCounters(tools.files)]);
  return hostMetrics(report, counters);
}

/**
 * Writes the metrics if the settings ask for it, whole or not at all, since a collector
 * may read at any time. Whatever goes wrong is a warning.
 */
export async function writeMetricsFile(tools: MetricsTools): Promise<void> {
  const { textfile } = tools.settings.metrics;
  if (textfile === undefined) return;
  try {
    await tools.outlets.writeMetrics(textfile, await readHostMetrics(tools));
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    tools.log.warn(`the metrics could not be written: ${message}`, { code });
  }
}

/**
 * Serves the metrics if the settings ask for it; gives what ends that. A host that
 * nobody can log in to goes on without.
 */
export async function serveHostMetrics(
  tools: MetricsTools,
): Promise<(() => Promise<void>) | undefined> {
  const { listen } = tools.settings.metrics;
  if (listen === undefined) return undefined;
  try {
    return await tools.outlets.serveMetrics(listen, () =>
      tools.watchdog.beside(() => readHostMetrics(tools)),
    );
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    tools.log.error(`there are no metrics at ${listen}: ${message}`, { code });
    return undefined;
  }
}

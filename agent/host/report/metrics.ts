import { toPullError } from "../../core/errors.ts";
import { hostMetrics } from "../../core/metrics/host-metrics.ts";
import { writeDurably } from "../../effects/files/durable-file.ts";
import { serveMetrics } from "../../effects/report/metrics-server.ts";
import { Agent, type AgentTools } from "../agent.ts";
import { makeReport } from "./host-report.ts";

/** This host's metrics as text, from disk alone. */
async function readHostMetrics(tools: AgentTools): Promise<string> {
  const [report, counters] = await Promise.all([makeReport(tools), new Agent(tools).counters()]);
  return hostMetrics(report, counters);
}

/**
 * Writes the metrics where the settings ask for it, whole or not at all, since a collector
 * may read at any time. Whatever goes wrong is a warning.
 */
export async function writeMetricsFile(tools: AgentTools): Promise<void> {
  const { textfile } = tools.settings.metrics;
  if (textfile === undefined) return;
  try {
    await writeDurably(textfile, await readHostMetrics(tools), 0o644);
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    tools.log.warn(`the metrics could not be written: ${message}`, { code });
  }
}

/**
 * Serves the metrics where the settings ask for it; gives what ends that. A host that
 * nobody can log in to goes on without.
 */
export async function serveHostMetrics(
  tools: AgentTools,
): Promise<(() => Promise<void>) | undefined> {
  const { listen } = tools.settings.metrics;
  if (listen === undefined) return undefined;
  try {
    return await serveMetrics(listen, () => readHostMetrics(tools));
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    tools.log.error(`there are no metrics at ${listen}: ${message}`, { code });
    return undefined;
  }
}

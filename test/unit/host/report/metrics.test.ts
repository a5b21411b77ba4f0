import { expect, test } from "vitest";
import { serveHostMetrics, writeMetricsFile } from "../../../../agent/host/report/metrics.ts";
import { MemoryHost } from "../../../support/memory-host.ts";

const FILE = { metrics: { textfile: "/var/lib/metrics/x.prom" } };
const SERVED = { metrics: { listen: "127.0.0.1:9100" } };

test("metrics are written and served only if the settings ask for it", async () => {
  const host = new MemoryHost();
  await writeMetricsFile(host.tools);
  expect(await serveHostMetrics(host.tools)).toBeUndefined();
  expect([host.takeCalls(), host.logged]).toEqual([[], []]);
});

test("what is written and what is served are this host's metrics", async () => {
  const host = new MemoryHost({ metrics: { ...FILE.metrics, ...SERVED.metrics } });
  host.files.set("counters.json", { polls: 41, pollFailures: 3, updates: 2 });
  const texts: string[] = [];
  const close = async (): Promise<void> => undefined;
  const outlets = {
    ...host.tools.outlets,
    writeMetrics: async (_: string, text: string) => void texts.push(text),
    serveMetrics: async (_: string, metrics: () => Promise<string>) => {
      texts.push(await metrics());
      return close;
    },
  };
  await writeMetricsFile({ ...host.tools, outlets });
  expect(await serveHostMetrics({ ...host.tools, outlets })).toBe(close);
  expect(texts).toHaveLength(2);
  for (const text of texts) {
    expect(text).toMatch(/^nixos_pull_polls_total\b.* 41$/m);
    expect(text).toContain('channel="stable"');
  }
});

test("metrics that cannot be told end nothing", async () => {
  const host = new MemoryHost(FILE);
  host.fault("write metrics", "IO_FAILED", "read-only");
  await writeMetricsFile(host.tools);
  expect(host.logged).toEqual(["warn: IO_FAILED: the metrics could not be written: read-only"]);
  const server = new MemoryHost(SERVED);
  server.fault("serve metrics", "IO_FAILED", "in use");
  expect(await serveHostMetrics(server.tools)).toBeUndefined();
  expect(server.logged).toEqual([
    "error: IO_FAILED: there are no metrics at 127.0.0.1:9100: in use",
  ]);
});

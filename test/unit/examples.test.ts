import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { fleetView } from "../../agent/core/fleet/fleet.ts";
import { fleetMetrics } from "../../agent/core/metrics/fleet-metrics.ts";
import { hostMetrics } from "../../agent/core/metrics/host-metrics.ts";
import { promtool } from "../support/promtool.ts";
import {
  FLEET_NOW,
  sampleHostnames,
  sampleManifest,
  sampleReport,
  variedReport,
} from "../support/sample-fleet.ts";

const EXAMPLES = fileURLToPath(new URL("../../agent/docs/examples", import.meta.url));

/** Every metric that there is. */
function metricNames(): Set<string> {
  const names = sampleHostnames(40);
  const reports = names.flatMap((name, at) => variedReport(name, at, 40) ?? []);
  const manifests = [{ manifest: sampleManifest(names), digest: "" }];
  const view = fleetView(
    { reports, manifests, distrusted: [] },
    { now: FLEET_NOW, silentAfter: 86_400_000 },
  );
  const failing = sampleReport("web1", { code: "DISK_FULL", message: "full" });
  const text = hostMetrics(failing, { polls: 1, pollFailures: 1, updates: 1 }) + fleetMetrics(view);
  return new Set(Array.from(text.matchAll(/^# TYPE (\S+)/gm), ([, name]) => name!));
}

describe("examples for monitoring", () => {
  it.each(["alerts.yml", "grafana-dashboard.json"])(
    "%s names only metrics that exist",
    async (name) => {
      const text = await readFile(join(EXAMPLES, name), "utf8");
      const used = new Set(text.match(/nixos_pull_[a-z_]+/g));
      expect(used.size).toBeGreaterThan(8);
      expect([...used].filter((it) => !metricNames().has(it))).toEqual([]);
    },
  );

  it("fleet.md names every metric of a host and of the fleet, and no other", async () => {
    const text = await readFile(join(EXAMPLES, "../fleet.md"), "utf8");
    const short = [...text.matchAll(/`…(_[a-z_]+)`/g)].map(([, name = ""]) => name);
    const named = new Set(text.match(/nixos_pull_[a-z_]+/g));
    for (const name of metricNames()) {
      const isNamed = named.has(name) || short.some((end) => `nixos_pull_fleet${end}` === name);
      expect(isNamed, `fleet.md does not name ${name}`).toBe(true);
    }
    expect([...named].filter((it) => !metricNames().has(it))).toEqual([]);
  });

  it("the dashboard is JSON whose panels have numbers of their own", async () => {
    const json = await readFile(join(EXAMPLES, "grafana-dashboard.json"), "utf8");
    const { panels } = JSON.parse(json) as { panels: { id: number }[] };
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  });

  it.skipIf(!promtool.isThere)("promtool finds nothing wrong with the alert rules", () => {
    const file = join(EXAMPLES, "alerts.yml");
    const { status, stdout } = spawnSync(promtool.path, ["check", "rules", file], {
      encoding: "utf8",
    });
    expect(status, stdout).toBe(0);
    expect(stdout).toContain("10 rules found");
  });
});

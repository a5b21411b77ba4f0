import { spawnSync } from "node:child_process";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fleetView } from "../../../../agent/core/fleet/fleet.ts";
import { fleetMetrics } from "../../../../agent/core/metrics/fleet-metrics.ts";
import { hostMetrics } from "../../../../agent/core/metrics/host-metrics.ts";
import {
  EXPOSITION_CONTENT_TYPE,
  exposition,
  secondsOf,
  single,
} from "../../../../agent/core/metrics/prometheus.ts";
import {
  FLEET_NOW,
  sampleHostnames,
  sampleManifest,
  sampleReport,
  variedReport,
} from "../../../support/sample-fleet.ts";
import { promtool } from "../../../support/promtool.ts";

const HOSTILE = 'a"b\\c\nd{e="f"} 1\n# TYPE x counter';

describe("exposition", () => {
  it("keeps every label on its line, whatever is in it", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (value) => {
        const text = exposition([
          { name: "x", type: "gauge", help: "h", samples: [{ labels: { l: value }, value: 1 }] },
        ]);
        const lines = text.split("\n");
        expect(lines).toHaveLength(4);
        const inner = /^x\{l="([^]*)"\} 1$/.exec(lines[2]!)![1]!;
        const read = inner.replace(/\\([^])/g, (_, it: string) => (it === "n" ? "\n" : it));
        expect(read).toBe(Buffer.from(value).toString());
      }),
    );
  });

  it("is one HELP and one TYPE line for each family, then its samples, in their order", () => {
    const text = exposition([
      {
        ...{ name: "b", type: "gauge", help: 'A "b" of \\ two\nlines.' },
        samples: [
          { labels: { x: "1", y: "2\n3\n", z: 'q"\\"\\' }, value: 4 },
          { labels: {}, value: 0.5 },
          { value: -1 },
        ],
      },
      { name: "a", type: "counter", help: "c", samples: [{ value: 7 }] },
    ]);
    expect(text).toBe(
      String.raw`# HELP b A "b" of \\ two\nlines.
# TYPE b gauge
b{x="1",y="2\n3\n",z="q\"\\\"\\"} 4
b 0.5
b -1
# HELP a c
# TYPE a counter
a 7
`,
    );
    expect(EXPOSITION_CONTENT_TYPE).toBe("text/plain; version=0.0.4; charset=utf-8");
  });

  it("leaves out families of which nothing is known", () => {
    const known = { name: "y", type: "gauge" as const, help: "h", samples: [{ value: 1 }] };
    expect(exposition([{ name: "x", type: "gauge", help: "h", samples: [] }])).toBe("");
    expect(exposition([{ ...known, name: "x", samples: [] }, known])).not.toContain("x");
  });
});

describe("a single value", () => {
  it("is one sample, or none if it is not known", () => {
    const family = { name: "x", type: "gauge", help: "h" };
    expect(single("x", "gauge", "h", 3)).toEqual({ ...family, samples: [{ value: 3 }] });
    expect(single("x", "gauge", "h", 0)).toEqual({ ...family, samples: [{ value: 0 }] });
    for (const value of [null, undefined, NaN]) {
      expect(single("x", "gauge", "h", value)).toEqual({ ...family, samples: [] });
    }
  });

  it("of a time is in seconds, or null if there is none", () => {
    expect(secondsOf("1970-01-01T00:01:00.500Z")).toBe(60.5);
    expect(secondsOf(null)).toBeNull();
    expect(secondsOf(undefined)).toBeNull();
  });
});

describe.skipIf(!promtool.isThere)("metrics, as promtool reads them", () => {
  const check = (text: string): string => {
    const { status, stderr, stdout } = spawnSync(promtool.path, ["check", "metrics"], {
      input: text,
      encoding: "utf8",
    });
    return `${status} ${stdout}${stderr}`.trim();
  };

  it("finds nothing wrong with a host's", () => {
    const counters = { polls: 7, pollFailures: 2, updates: 1 };
    for (const at of [0, 2, 5, 7, 9, 13]) {
      const report = variedReport("web1", at, 20)!;
      expect(check(hostMetrics(report, counters))).toBe("0");
    }
    const bare = sampleReport("web1", { release: null, accepted: null, agentVersion: HOSTILE });
    const text = hostMetrics(bare, counters);
    expect(check(text)).toBe("0");
    expect(text).toContain("nixos_pull_polls_total 7\n");
  });

  it("finds nothing wrong with a fleet's", () => {
    const names = sampleHostnames(40);
    const reports = names.flatMap((name, at) => variedReport(name, at, 40) ?? []);
    const manifests = [{ manifest: sampleManifest(names), digest: "" }];
    const view = fleetView(
      { reports, manifests, distrusted: [] },
      { now: FLEET_NOW, silentAfter: 1e8 },
    );
    const text = fleetMetrics(view);
    expect(check(text)).toBe("0");
    expect(text).toContain('nixos_pull_fleet_release_hosts{channel="stable"} 40\n');
  });
});

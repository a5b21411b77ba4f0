import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  STANDINGS,
  describeCounts,
  describeTarget,
  fleetView,
} from "../../../../agent/core/fleet/fleet.ts";
import {
  FLEET_NOW,
  sampleHostnames,
  sampleManifest,
  sampleReport,
  sampleToplevel,
  variedReport,
} from "../../../support/sample-fleet.ts";

const options = { now: FLEET_NOW, silentAfter: 86_400_000 };

function sampleFleet(count: number) {
  const names = sampleHostnames(count);
  const reports = names.flatMap((name, at) => variedReport(name, at, count) ?? []);
  const manifests = [{ manifest: sampleManifest(names), digest: "" }];
  return { names, input: { reports, manifests, distrusted: [] } };
}

function viewOf(report: ReturnType<typeof sampleReport>) {
  const manifests = [{ manifest: sampleManifest([report.hostname]), digest: "" }];
  const [host] = fleetView({ reports: [report], manifests, distrusted: [] }, options).hosts;
  return host!;
}

describe("fleetView", () => {
  it("has one row for each host, worst first, whether it reported or not", () => {
    const { names, input } = sampleFleet(200);
    const { hosts, counts } = fleetView(input, options);
    expect(hosts.map(({ host }) => host).sort()).toEqual([...names].sort());
    const ranks = hosts.map(({ standing }) => STANDINGS.indexOf(standing));
    expect(ranks).toEqual([...ranks].sort((a, b) => a - b));
    expect(counts.missing).toBe(names.length - input.reports.length);
    expect(counts.missing).toBeGreaterThan(0);
    expect(Object.values(counts).reduce((a, b) => a + b)).toBe(200);
  });

  it("says what each host is", () => {
    expect(viewOf(sampleReport("web1"))).toMatchObject({ standing: "current", onTarget: true });
    const failing = sampleReport("web1", { code: "DISK_FULL", message: "no room" });
    expect(viewOf(failing)).toMatchObject({ standing: "failing", code: "DISK_FULL" });
    const silent = sampleReport("web1", { at: "2026-11-20T12:00:00.000Z" });
    expect(viewOf(silent).standing).toBe("silent");
    const ahead = sampleReport("web1", { at: "2026-11-24T13:00:00.000Z" });
    expect(viewOf(ahead)).toMatchObject({
      standing: "silent",
      note: "its clock is ahead: it says 2026-11-24T13:00:00.000Z",
    });
    const drift = { what: "profile" as const, expected: sampleToplevel("web1-12"), found: null };
    expect(viewOf(sampleReport("web1", { drift }))).toMatchObject({
      standing: "drifted",
      onTarget: false,
    });
  });

  it("takes a refreshed release for the same system", () => {
    const report = sampleReport("web1");
    const release = { ...report.release!, sequence: 9, digest: "0".repeat(64) };
    expect(viewOf({ ...report, release })).toMatchObject({ standing: "current", onTarget: true });
  });

  it("goes by the newest accepted release where there is no manifest", () => {
    const old = { ...sampleReport("web2").release!, sequence: 11 };
    const reports = [sampleReport("web1"), sampleReport("web2", { release: old })];
    const { targets, hosts } = fleetView({ reports, manifests: [], distrusted: [] }, options);
    expect(targets.map(describeTarget)).toEqual(["1 of 2 hosts run release 12 of stable"]);
    expect(hosts.map(({ host, standing }) => `${host} ${standing}`)).toEqual([
      "web2 behind",
      "web1 current",
    ]);
  });

  it("counts for a release exactly the hosts that it names, in the order of their commits", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 120 }), (count) => {
        const { input } = sampleFleet(count);
        const { targets, hosts, counts } = fleetView(input, options);
        const [target] = targets;
        expect(target!.hosts).toBe(count);
        expect(target!.onTarget).toBe(hosts.filter((it) => it.onTarget).length);
        expect([...target!.committed].sort()).toEqual(target!.committed);
        const told = describeCounts(counts).match(/\d+/g) ?? [];
        expect(told.map(Number).reduce((a, b) => a + b)).toBe(count);
      }),
      { numRuns: 30 },
    );
  });

  it("finds hosts that are called like what every object has", () => {
    const manifests = [{ manifest: sampleManifest(["web1"]), digest: "" }];
    const reports = [sampleReport("constructor")];
    const { hosts } = fleetView({ reports, manifests, distrusted: [] }, options);
    expect(hosts.find(({ host }) => host === "constructor")).toMatchObject({ onTarget: null });
  });
});

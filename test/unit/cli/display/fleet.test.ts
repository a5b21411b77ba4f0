import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fleetLines } from "../../../../agent/cli/display/fleet.ts";
import { render } from "../../../../agent/cli/display/screen.ts";
import { fleetView, type Fleet } from "../../../../agent/core/fleet/fleet.ts";
import { Times } from "../../../../agent/core/text/times.ts";
import {
  FLEET_NOW,
  FLEET_OPTIONS,
  hostileView,
  sampleManifest,
  sampleReport,
  sampleView,
} from "../../../support/sample-fleet.ts";

const PIPE = { columns: Infinity, colour: false };

function shown(view: Fleet, screen = PIPE): string {
  return render(fleetLines(view, new Times({ now: FLEET_NOW, zone: "UTC" }), screen), screen);
}

describe("fleet on a terminal", () => {
  it("begins with how many hosts are where they should be, then has failing hosts first", () => {
    const text = shown(sampleView(50));
    const lines = text.split("\n");
    expect(lines[0]).toBe("● 35 of 50 hosts run release 12 of stable.");
    expect(lines[1]).toMatch(/^50 hosts: \d+ failing, .* current\.$/);
    expect(lines[3]).toMatch(/^HOST +RELEASE +STANDING +CODE +SEEN +/);
    expect(lines[4]).toMatch(/ failing +RELEASE_DENIED +\d+ (min|hours) ago /);
    expect(text).toMatch(/^ {4}the update to release \d+ failed at .*\d\d:\d\d:$/m);
    expect(text).not.toMatch(/\d{4}-\d\d-\d\dT/);
    expect(text).toContain("| postgres[41337]: FATAL: data directory was initialized");
  });

  it("leaves columns out that say nothing of any host", () => {
    const hosts = ["web1", "web2"];
    const reports = hosts.map((name) => sampleReport(name));
    const manifests = [{ manifest: sampleManifest(hosts), digest: "" }];
    const text = shown(fleetView({ reports, manifests, distrusted: [] }, FLEET_OPTIONS));
    expect(text).toMatch(/^● 2 of 2 hosts run release 12 of stable\.\n2 hosts: 2 current\.\n\n/);
    expect(text).toMatch(/^HOST +RELEASE +STANDING +SEEN +FREE$/m);
  });

  it("colours what wants a person", () => {
    const screen = { columns: 80, colour: true };
    const text = shown(sampleView(50), screen);
    expect(text).toMatch(/^\u001b\[31m●\u001b\[39m 35 of 50/);
    expect(text).toContain("\u001b[31mfailing\u001b[39m");
    expect(text).toContain("\u001b[32mcurrent\u001b[39m");
  });

  it("says of a fleet of which nothing is known that there are no hosts", () => {
    expect(shown(fleetView({ reports: [], manifests: [], distrusted: [] }, FLEET_OPTIONS))).toBe(
      "No hosts.",
    );
  });

  it("lets no host write to the terminal", () => {
    const lines = shown(hostileView("x")).split("\n").length;
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 300 }), (text) => {
        const all = shown(hostileView(`\u001b[2J${text}\r`));
        expect(all.replaceAll("\n", "")).not.toMatch(/[\p{Cc}\u202a-\u202e]/u);
        expect(all.split("\n")).toHaveLength(lines);
      }),
      { numRuns: 30 },
    );
  });
});

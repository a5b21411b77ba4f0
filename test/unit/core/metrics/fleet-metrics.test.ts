import { expect, test } from "vitest";
import { fleetView } from "../../../../agent/core/fleet/fleet.ts";
import type { Report } from "../../../../agent/core/formats/report.ts";
import { fleetMetrics } from "../../../../agent/core/metrics/fleet-metrics.ts";
import { samplesOf } from "../../../support/exposition.ts";
import {
  FLEET_NOW,
  sampleManifest,
  sampleReport,
  sampleToplevel,
} from "../../../support/sample-fleet.ts";

const GIB = 1024 ** 3;

function metricsOf(names: readonly string[], reports: readonly Report[]): string[] {
  const manifests = [{ manifest: sampleManifest(names), digest: "" }];
  const options = { now: FLEET_NOW, silentAfter: 86_400_000 };
  return samplesOf(fleetMetrics(fleetView({ reports, manifests, distrusted: [] }, options)));
}

test("a fleet's release and each of its hosts, with what is known of them", () => {
  const { disk: _, ...web2 } = sampleReport("web2", { code: "DISK_FULL", message: "no room" });
  const drift = { what: "profile" as const, expected: sampleToplevel("web3-12"), found: null };
  const web3 = sampleReport("web3", { drift });
  const release = web2.release && { ...web2.release, rebootNeeded: true };
  const reports = [sampleReport("web1"), { ...web2, release }, web3];
  const at = Date.parse("2026-11-24T11:54:00Z") / 1000;
  const reported = ["web2", "web3", "web1"];
  const each = (name: string, values: readonly number[]): string[] =>
    values.map((value, index) => `fleet_host_${name}{host="${reported[index]}"} ${value}`);
  expect(metricsOf(["web1", "web2", "web3", "web4"], reports)).toEqual([
    'fleet_hosts{standing="distrusted"} 0',
    'fleet_hosts{standing="failing"} 1',
    'fleet_hosts{standing="silent"} 0',
    'fleet_hosts{standing="missing"} 1',
    'fleet_hosts{standing="drifted"} 1',
    'fleet_hosts{standing="waiting"} 0',
    'fleet_hosts{standing="behind"} 0',
    'fleet_hosts{standing="reboot"} 0',
    'fleet_hosts{standing="current"} 1',
    'fleet_release_sequence{channel="stable"} 12',
    `fleet_release_expires_timestamp_seconds{channel="stable"} ${Date.parse("2027-02-22T06:00:00Z") / 1000}`,
    'fleet_release_hosts{channel="stable"} 4',
    'fleet_release_hosts_on_target{channel="stable"} 2',
    'fleet_host_info{host="web2",channel="stable",standing="failing",code="DISK_FULL"} 1',
    'fleet_host_info{host="web4",channel="stable",standing="missing",code=""} 1',
    'fleet_host_info{host="web3",channel="stable",standing="drifted",code=""} 1',
    'fleet_host_info{host="web1",channel="stable",standing="current",code=""} 1',
    ...each("report_timestamp_seconds", [at, at, at]),
    ...each("release_sequence", [12, 12, 12]),
    'fleet_host_on_target{host="web2"} 1',
    'fleet_host_on_target{host="web4"} 0',
    'fleet_host_on_target{host="web3"} 0',
    'fleet_host_on_target{host="web1"} 1',
    ...each("reboot_needed", [1, 0, 0]),
    ...each("drifted", [0, 1, 0]),
    ...["web3", "web1"].map((host) => `fleet_host_store_free_bytes{host="${host}"} ${40 * GIB}`),
    ...["web3", "web1"].map((host) => `fleet_host_store_size_bytes{host="${host}"} ${100 * GIB}`),
  ]);
});

test("a host that no release names has no channel to follow and no target", () => {
  const view = {
    ...fleetView(
      { reports: [], manifests: [], distrusted: [] },
      { now: FLEET_NOW, silentAfter: 1 },
    ),
  };
  expect(samplesOf(fleetMetrics(view)).every((it) => /^fleet_hosts\{.*\} 0$/.test(it))).toBe(true);
  const stranger = metricsOf(["web1"], [sampleReport("web9")]);
  expect(stranger.filter((it) => it.includes("on_target{host="))).toEqual([
    'fleet_host_on_target{host="web1"} 0',
  ]);
});

test("without a manifest no expiry is known, and of a host without a report no channel", () => {
  const distrusted = [{ hostname: "web9", reason: "KEY_UNKNOWN" as const, message: "no key" }];
  const input = { reports: [sampleReport("web1")], manifests: [], distrusted };
  const view = fleetView(input, { now: FLEET_NOW, silentAfter: 86_400_000 });
  const samples = samplesOf(fleetMetrics(view));
  expect(samples).toContain(
    'fleet_host_info{host="web9",channel="",standing="distrusted",code="KEY_UNKNOWN"} 1',
  );
  expect(samples).toContain('fleet_release_sequence{channel="stable"} 12');
  expect(samples.filter((sample) => sample.includes("expires"))).toEqual([]);
});

import { describe, expect, test } from "vitest";
import type { Report } from "../../../../agent/core/formats/report.ts";
import { hostMetrics } from "../../../../agent/core/metrics/host-metrics.ts";
import { samplesOf } from "../../../support/exposition.ts";
import { sampleReport } from "../../../support/sample-fleet.ts";

const COUNTERS = { polls: 7, pollFailures: 2, updates: 1 };

function metricsOf(changes: Partial<Report> = {}, without: (keyof Report)[] = []): string[] {
  const report = sampleReport("web1", changes);
  const kept = Object.entries(report).filter(([key]) => !without.includes(key as keyof Report));
  return samplesOf(hostMetrics(Object.fromEntries(kept) as Report, COUNTERS));
}

/** The samples of some families only. */
const only = (samples: readonly string[], name: RegExp): string[] =>
  samples.filter((sample) => name.test(sample));

/** Those of a family with one sample for each value of a label that are 1. */
const set = (samples: readonly string[], family: string): string[] =>
  samples.filter((sample) => sample.startsWith(`${family}{`) && sample.endsWith(" 1"));

test("a host that is what it should be", () => {
  const report = sampleReport("web1");
  const samples = metricsOf();
  expect(samples.filter((sample) => !/^(state|waiting)\{/.test(sample))).toEqual([
    'build_info{version="0.1.0"} 1',
    'host_info{hostname="web1",channel="stable"} 1',
    `release_info{digest="${report.release?.digest}",toplevel="${report.release?.toplevel}"} 1`,
    "release_sequence 12",
    `release_committed_timestamp_seconds ${Date.parse("2026-11-24T07:00:00Z") / 1000}`,
    "accepted_sequence 12",
    "accepted_epoch 0",
    "failing 0",
    "reboot_needed 0",
    "drifted 0",
    `store_free_bytes ${40 * 1024 ** 3}`,
    `store_size_bytes ${100 * 1024 ** 3}`,
    `last_poll_timestamp_seconds ${Date.parse("2026-11-24T11:54:00Z") / 1000}`,
    `report_timestamp_seconds ${Date.parse("2026-11-24T11:54:00Z") / 1000}`,
    "polls_total 7",
    "poll_failures_total 2",
    "updates_total 1",
  ]);
  expect(set(samples, "state")).toEqual(['state{state="Idle"} 1']);
  expect(only(samples, /^state\{/)).toHaveLength(14);
  expect(set(samples, "waiting")).toEqual([]);
  expect(only(samples, /^waiting\{/)).toHaveLength(7);
});

test("what is not known is left out", () => {
  const samples = metricsOf({ release: null, accepted: null }, ["lastPoll", "disk", "waits"]);
  expect(samples.map((sample) => sample.split(/[ {]/)[0])).toEqual([
    ...["build_info", "host_info"],
    ...Array<string>(14).fill("state"),
    "failing",
    ...Array<string>(7).fill("waiting"),
    ...["reboot_needed", "drifted", "report_timestamp_seconds"],
    ...["polls_total", "poll_failures_total", "updates_total"],
  ]);
});

describe("what is wrong, and what is waited for", () => {
  test("is told by its code and by each reason", () => {
    const wait = { message: "m", until: null };
    const samples = metricsOf({
      ...{ code: "DISK_FULL", message: "no room", state: "Fetching" },
      waits: [
        { reason: "HELD", ...wait },
        { reason: "WINDOW_CLOSED", ...wait },
      ],
    });
    expect(only(samples, /^(failing|error_info)/)).toEqual([
      "failing 1",
      'error_info{code="DISK_FULL"} 1',
    ]);
    expect(set(samples, "waiting")).toEqual([
      'waiting{reason="HELD"} 1',
      'waiting{reason="WINDOW_CLOSED"} 1',
    ]);
    expect(set(samples, "state")).toEqual(['state{state="Fetching"} 1']);
  });

  test("is a reboot of the release, or one that is pending", () => {
    const { release } = sampleReport("web1");
    const needed = release && { ...release, rebootNeeded: true };
    expect(metricsOf({ release: needed })).toContain("reboot_needed 1");
    const pendingReboot = {
      ...{ sequence: 12, message: "a reboot", policy: "window" as const, requested: 0 },
    };
    expect(metricsOf({ pendingReboot })).toContain("reboot_needed 1");
    expect(metricsOf({ pendingReboot, release: null })).toContain("reboot_needed 1");
    expect(metricsOf({ release: null })).toContain("reboot_needed 0");
  });

  test("is a change by hand", () => {
    const { profile } = sampleReport("web1");
    const drift = { what: "profile" as const, expected: profile ?? "", found: null };
    expect(metricsOf({ drift })).toContain("drifted 1");
  });
});

import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import type { PendingReport } from "../../../../agent/core/formats/pending-report.ts";
import { ReportDelivery } from "../../../../agent/host/report/report-delivery.ts";
import { MemoryHost } from "../../../support/memory-host.ts";

const BOTH = { reports: { directory: "/srv/reports", url: "https://inbox.example.org/" } };
const DIRECTORY = { reports: { directory: "/srv/reports" } };
const LIMITS = { limits: { retryBase: "10s", retryMax: "1m" } };
const START = "2026-02-01T00:00:00.000Z";

function deliveryOf(config: object): { host: MemoryHost; reports: ReportDelivery } {
  const host = new MemoryHost({ ...LIMITS, ...config });
  return { host, reports: new ReportDelivery(host.tools) };
}

function pending(changes: Partial<PendingReport["targets"][number]> = {}): PendingReport {
  const target = { target: "directory", failures: 1, retryAt: START, ...changes } as const;
  return { envelope: "older", targets: [target] };
}

describe("a report", () => {
  test("is not made if nobody wants one", async () => {
    const { host, reports } = deliveryOf({});
    await reports.sendNew();
    expect([host.takeCalls(), host.reports, host.logged]).toEqual([[], [], []]);
    expect(await reports.untilRetry()).toBe(Infinity);
  });

  test("is brought everywhere that the settings name", async () => {
    const { host, reports } = deliveryOf(BOTH);
    await reports.sendNew();
    expect(host.takeCalls()).toEqual(["deliver report to directory", "deliver report to url"]);
    expect(host.reports[0]).toBe(host.reports[1]);
    expect([host.spool, host.logged]).toEqual([null, []]);
  });

  test("is kept for the place that failed, and tried there later and later", async () => {
    const { host, reports } = deliveryOf(BOTH);
    host.fault("deliver report to url", "MIRROR_STATUS", "503");
    await reports.sendNew();
    const kept = (failures: number, retryAt: string) => ({
      envelope: expect.any(String),
      targets: [{ target: "url", failures, retryAt }],
    });
    expect(host.spool).toEqual(kept(1, "2026-02-01T00:00:10.000Z"));
    expect(await reports.untilRetry()).toBe(10_000);
    // Not before its time.
    host.time.advance(9_999);
    await reports.retry();
    expect(host.takeCalls()).toEqual(["deliver report to directory"]);
    host.time.advance(1);
    expect(await reports.untilRetry()).toBe(0);
    host.fault("deliver report to url", "MIRROR_STATUS", "503");
    await reports.retry();
    expect(host.spool).toEqual(kept(2, "2026-02-01T00:00:30.000Z"));
    host.time.advance(60_000);
    expect(await reports.untilRetry()).toBe(0);
    await reports.retry();
    expect(host.takeCalls()).toEqual(["deliver report to url"]);
    expect(host.spool).toBeNull();
    // The second failure is for those who look closely.
    expect(host.logged).toEqual([
      "warn: MIRROR_STATUS: the report could not be delivered: 503",
      "info: the report was delivered (url), attempt 3",
    ]);
  });

  test("takes the place of an older one, whose failures still count", async () => {
    const { host, reports } = deliveryOf(DIRECTORY);
    host.spool = pending({ failures: 2, retryAt: "2026-02-01T00:00:40.000Z" });
    host.fault("deliver report", "IO_FAILED", "not mounted");
    await reports.sendNew();
    expect(host.spool.envelope).not.toBe("older");
    expect(host.spool.targets).toEqual([
      { target: "directory", failures: 3, retryAt: "2026-02-01T00:00:40.000Z" },
    ]);
  });

  test("is tried at once if a clock that was set back would keep it for years", async () => {
    const { host, reports } = deliveryOf(DIRECTORY);
    host.spool = pending({ retryAt: "2026-02-01T00:01:12.000Z" });
    await reports.retry();
    expect(host.takeCalls()).toEqual([]);
    host.spool = pending({ retryAt: "2026-02-01T00:01:12.001Z" });
    await reports.retry();
    expect([host.takeCalls(), host.reports]).toEqual([["deliver report to directory"], ["older"]]);
  });

  test("is not brought to a place that the settings no longer name", async () => {
    const { host, reports } = deliveryOf({ reports: { url: "https://inbox.example.org/" } });
    host.spool = pending();
    await reports.retry();
    expect([host.takeCalls(), host.spool]).toEqual([[], null]);
  });

  test("stays as it is if the agent is stopped meanwhile", async () => {
    const { host, reports } = deliveryOf(DIRECTORY);
    host.spool = pending();
    host.fault("deliver report", "INTERRUPTED", "stopped");
    await reports.retry();
    expect(host.spool).toEqual(pending());
    expect(host.logged).toEqual([]);
  });
});

describe("what goes wrong with the report itself", () => {
  test("is a warning, and no end of the service", async () => {
    const { host } = deliveryOf(DIRECTORY);
    const hostKey = () => Promise.reject(new PullError("KEY_INVALID", "torn"));
    await new ReportDelivery({ ...host.tools, hostKey }).sendNew();
    const read = () => Promise.reject(new Error("EIO"));
    const unreadable = new ReportDelivery({ ...host.tools, spool: { ...host.tools.spool, read } });
    await unreadable.retry();
    expect(await unreadable.untilRetry()).toBe(Infinity);
    expect(host.logged).toEqual([
      "warn: KEY_INVALID: the report could not be made or kept: torn",
      expect.stringMatching(/^warn: \w+: the report could not be made or kept: EIO$/),
    ]);
    const stopped = () => Promise.reject(host.interrupted);
    await new ReportDelivery({ ...host.tools, hostKey: stopped }).sendNew();
    expect(host.logged).toHaveLength(2);
  });
});

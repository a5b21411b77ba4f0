import { expect, test } from "vitest";
import {
  pendingReportSchema,
  reportTargets,
} from "../../../../agent/core/formats/pending-report.ts";

test.each([
  [{}, []],
  [{ url: "https://reports.example.org" }, ["url"]],
  [{ directory: "/reports" }, ["directory"]],
  [{ url: "https://reports.example.org", directory: "/reports" }, ["directory", "url"]],
])("with the settings %j a report goes to %j", (reports, targets) => {
  expect(reportTargets({ reports })).toEqual(targets);
});

test("a report that did not get everywhere says where it has to go, and when again", () => {
  const target = { target: "url", failures: 0, retryAt: "2026-02-01T00:00:00.000Z" };
  const pending = { envelope: "{}", targets: [target, { ...target, target: "directory" }] };
  expect(pendingReportSchema.parse(pending)).toEqual(pending);
  for (const change of [{ target: 7 }, { failures: -1 }, { retryAt: "soon" }, { more: 1 }]) {
    const targets = [{ ...target, ...change }];
    expect(pendingReportSchema.safeParse({ ...pending, targets }).success).toBe(false);
  }
  expect(pendingReportSchema.safeParse({ ...pending, more: 1 }).success).toBe(false);
});

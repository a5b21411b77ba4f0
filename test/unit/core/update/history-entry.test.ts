import { expect, test } from "vitest";
import { historyEntrySchema } from "../../../../agent/core/update/history-entry.ts";
import { sampleDigest } from "../../../support/sample-release.ts";

const AT = "2026-02-01T00:00:00.000Z";
const LEAST = { at: AT, event: "HealthConfirmed", state: "Committed" };
const FULL = {
  ...{ ...LEAST, sequence: 7, toplevel: "/nix/store/x", mode: "switch", code: "HEALTH_FAILED" },
  ...{ message: "sick", lastLines: ["a", "b"], deltas: { used: 0, failed: 2 } },
  trust: { channel: "stable", sequence: 7, digest: sampleDigest("release 7"), createdAt: AT },
};

test("an entry has a time, an event and the state it led to; the rest may be absent", () => {
  for (const entry of [LEAST, FULL]) expect(historyEntrySchema.parse(entry)).toEqual(entry);
  for (const key of Object.keys(LEAST)) {
    expect(historyEntrySchema.safeParse({ ...FULL, [key]: undefined }).success).toBe(false);
  }
});

test.each([
  ...[{ at: "today" }, { sequence: 0 }, { sequence: 1.5 }, { lastLines: [1] }, { extra: 1 }],
  ...[{ deltas: { used: -1, failed: 0 } }, { deltas: { used: 0, failed: -1 } }],
  ...[{ deltas: { used: 0 } }, { deltas: { used: 0, failed: 0, more: 1 } }, { trust: {} }],
])("an entry with %j is none", (change) => {
  expect(historyEntrySchema.safeParse({ ...FULL, ...change }).success).toBe(false);
});

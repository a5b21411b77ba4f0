import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import { parseSettings } from "../../../../agent/core/settings.ts";
import type { Wait } from "../../../../agent/core/schedule/waiting.ts";
import { EMPTY_RECORD, type AgentRecord } from "../../../../agent/core/update/record.ts";
import type { State } from "../../../../agent/core/update/states.ts";
import { nextOccasion } from "../../../../agent/host/daemon/next-occasion.ts";
import type { TickOutcome } from "../../../../agent/host/poll/finding.ts";
import { sampleRelease } from "../../../support/sample-release.ts";
import { testKey } from "../../../support/test-key.ts";

const NOW = new Date("2026-02-01T00:00:00.000Z");
const MINUTE_MS = 60_000;
const release = sampleRelease({ sequence: 7 });
const BASELINE = {
  ...{ profile: null, generation: null, running: null },
  ...{ failedUnits: [], restartedUnits: [] },
};
const inMinutes = (minutes: number): string =>
  new Date(NOW.getTime() + minutes * MINUTE_MS).toISOString();

/** Minutes until there is something to do again; null if nobody knows. */
function minutesTo(changes: Partial<TickOutcome>, config: object = {}): number | null {
  const settings = parseSettings(
    {
      ...{ mirrors: ["https://a.example.org/"], publicKeys: [testKey("fleet-1").publicKey.text] },
      ...config,
    },
    "web1",
  );
  const outcome = {
    ...{ verdicts: [], release, decision: null, error: null, record: EMPTY_RECORD },
    ...{ updated: false, ...changes },
  };
  const at = nextOccasion(outcome, settings, NOW);
  return at === null ? null : (at - NOW.getTime()) / MINUTE_MS;
}

const inState = (state: State): AgentRecord => ({ ...EMPTY_RECORD, state });
const failed = (minutes: number, gaveUp?: true): AgentRecord =>
  inState({
    ...{ name: "Failed", release, attempts: 1, retryAt: inMinutes(minutes) },
    reason: { code: "MIRROR_STALLED", message: "stalled" },
    ...(gaveUp && { gaveUp }),
  });

function waiting(...minutes: (number | null)[]): Partial<TickOutcome> {
  const waits = minutes.map((it): Wait => ({
    ...{ reason: "HELD", message: "held", binds: "everyone", allowsFetch: false },
    until: it === null ? null : inMinutes(it),
  }));
  return { decision: { kind: "waiting", waits } };
}

describe("the next occasion", () => {
  test("is unknown if nothing waits", () => {
    expect(minutesTo({})).toBeNull();
    expect(minutesTo({ decision: { kind: "active" } })).toBeNull();
  });

  test("is now, if a release comes after the one that was a barrier", () => {
    const next = sampleRelease({ sequence: 8 });
    expect(minutesTo({ next, updated: true })).toBe(0);
    expect(minutesTo({ next, decision: { kind: "adopt" } })).toBe(0);
    expect(minutesTo({ next, decision: { kind: "active" } })).toBeNull();
    expect(minutesTo({ updated: true })).toBeNull();
  });

  test("is the end of the last wait", () => {
    expect(minutesTo(waiting(20, 30))).toBe(30);
    expect(minutesTo(waiting(20, null))).toBeNull();
    expect(minutesTo(waiting(-1))).toBeNull();
  });

  test("is a retry, unless it gave up", () => {
    expect(minutesTo({ record: failed(4) })).toBe(4);
    expect(minutesTo({ record: failed(4, true) })).toBeNull();
  });

  test("is an overdue retry only if the release was just tried", () => {
    expect(minutesTo({ record: failed(-4) })).toBeNull();
    expect(minutesTo({ record: failed(0) })).toBeNull();
    expect(minutesTo({ record: failed(-4), decision: { kind: "update" } })).toBe(-4);
    expect(minutesTo({ decision: { kind: "update" } })).toBeNull();
  });

  test("is in five minutes, if somebody blocks the reboot", () => {
    const error = new PullError("REBOOT_BLOCKED", "ann is logged in");
    expect(minutesTo({ error })).toBe(5);
    expect(minutesTo({ error, record: failed(4) })).toBe(4);
    expect(minutesTo({ error: new PullError("REBOOT_REFUSED", "no slot") })).toBeNull();
  });

  test("is the next window of a host that has to reboot", () => {
    const pendingReboot = {
      ...{ release, wayBack: false, attempts: 0, requested: 0, bootId: "boot 1" },
      baseline: BASELINE,
    };
    const record = { ...EMPTY_RECORD, pendingReboot };
    const window = { cron: "0 2 * * *", duration: "1h" };
    const maintenance = { jitter: "0s" };
    const inWindow = { maintenance, reboot: { policy: "window", window } };
    expect(minutesTo({ record }, inWindow)).toBe(120);
    expect(minutesTo({ record }, { reboot: { policy: "now" } })).toBeNull();
    expect(minutesTo({}, inWindow)).toBeNull();
  });
});

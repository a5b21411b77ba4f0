import { describe, expect, test } from "vitest";
import { PullError } from "../../../../agent/core/errors.ts";
import type { Decision } from "../../../../agent/core/update/plan.ts";
import { EMPTY_RECORD } from "../../../../agent/core/update/record.ts";
import { TickLog } from "../../../../agent/host/daemon/tick-log.ts";
import type { TickOutcome } from "../../../../agent/host/poll/finding.ts";
import { recordingLog } from "../../../support/recording-log.ts";
import { sampleRelease } from "../../../support/sample-release.ts";

const STICK = "file:///mnt/stick";
const WEB = "https://a.example.org/";

function outcomeOf(changes: Partial<TickOutcome> = {}): TickOutcome {
  return {
    ...{ verdicts: [], release: sampleRelease({ sequence: 7 }), decision: null, error: null },
    ...{ record: EMPTY_RECORD, updated: false },
    ...changes,
  };
}

/** What the log got, with the code of each line. */
function told(...outcomes: readonly TickOutcome[]): string[] {
  const log = recordingLog();
  const tickLog = new TickLog(log);
  for (const outcome of outcomes) tickLog.tell(outcome);
  return log.lines.map(({ level, message, fields: { code } }) =>
    [level, ...(typeof code === "string" ? [code] : []), message].join(": "),
  );
}

const decided = (decision: Decision): TickOutcome => outcomeOf({ decision });
const NOTHING = "debug: poll: nothing";

describe("mirrors", () => {
  const absent = { mirror: STICK, code: "MIRROR_ABSENT", message: "no stick", unchanged: false };
  const without = outcomeOf({ verdicts: [{ ...absent, code: "MIRROR_ABSENT" }] });
  const withStick = outcomeOf({ verdicts: [{ mirror: STICK, sequence: 7, unchanged: false }] });

  test("a stick that went, and one that came, are told once", () => {
    const [gone, back] = [`info: MIRROR_ABSENT: ${STICK}: no stick`, `info: ${STICK}: there again`];
    const stick = [withStick, without, without, withStick, withStick, without];
    expect(told(...stick)).toEqual([
      ...[NOTHING, gone, NOTHING, NOTHING, back, NOTHING, NOTHING, gone, NOTHING],
    ]);
  });

  test("one that fails is told each time, and the poll's error not once more", () => {
    const failing = outcomeOf({
      verdicts: [
        { mirror: WEB, code: "MIRROR_STATUS", message: "503", unchanged: false },
        { mirror: STICK, sequence: 7, unchanged: true },
      ],
      error: new PullError("MIRROR_STATUS", "503"),
    });
    const line = `warn: MIRROR_STATUS: ${WEB}: 503`;
    expect(told(failing, failing)).toEqual([line, NOTHING, line, NOTHING]);
  });
});

describe("errors", () => {
  test("are told, unless the agent was stopped", () => {
    const of = (code: "DISK_FULL" | "INTERRUPTED") =>
      outcomeOf({ error: new PullError(code, "why") });
    expect(told(of("DISK_FULL"), of("INTERRUPTED"))).toEqual([
      ...["error: DISK_FULL: why", NOTHING, NOTHING],
    ]);
  });
});

describe("decisions", () => {
  const reason = { code: "HEALTH_FAILED", message: "nginx failed" } as const;
  const wait = { until: null, binds: "everyone", allowsFetch: false } as const;

  test("that keep the host from a release are told", () => {
    expect(told(decided({ kind: "denied", reason }))).toEqual([
      "warn: RELEASE_DENIED: release 7 is not tried again: nginx failed",
    ]);
    const found = sampleRelease().toplevel;
    expect(told(decided({ kind: "drifted", found }))).toEqual([
      `warn: this host was changed by hand and is left alone: found ${found}`,
    ]);
    const waits = [
      { ...wait, reason: "HELD", message: "held by ann" },
      { ...wait, reason: "ROLLOUT_PAUSED", message: "paused" },
    ] as const;
    expect(told(decided({ kind: "waiting", waits }))).toEqual([
      "info: HELD: release 7 waits: held by ann",
      "info: ROLLOUT_PAUSED: release 7 waits: paused",
    ]);
  });

  test("of every day are for those who look closely", () => {
    expect(told(decided({ kind: "active" }))).toEqual(["debug: poll: active"]);
    expect(told(outcomeOf())).toEqual([NOTHING]);
  });
});

describe("a failed attempt", () => {
  const failedAt = (retryAt: string, gaveUp = false): TickOutcome => {
    const reason = { code: "MIRROR_STALLED", message: "slow" } as const;
    const release = sampleRelease({ sequence: 7 });
    const state = { name: "Failed", release, attempts: 2, reason, retryAt, gaveUp } as const;
    return outcomeOf({ record: { ...EMPTY_RECORD, state } });
  };

  test("is followed by when the next one comes, once", () => {
    const [first, second] = [
      failedAt("2026-02-01T00:00:00.000Z"),
      failedAt("2026-02-01T01:00:00.000Z"),
    ];
    expect(told(first, first, second).filter((line) => line !== NOTHING)).toEqual([
      "info: release 7 is tried again at 2026-02-01T00:00:00.000Z, after 2 attempts",
      "info: release 7 is tried again at 2026-02-01T01:00:00.000Z, after 2 attempts",
    ]);
  });

  test("that is the last one is said to be, and again if it comes to that again", () => {
    const spent = failedAt("2026-02-01T00:00:00.000Z", true);
    const line =
      "warn: release 7 is given up after 2 attempts: it waits for `nixos-pull apply` or another release";
    expect(told(spent, spent).filter((it) => it !== NOTHING)).toEqual([line]);
    const others = told(spent, outcomeOf(), spent).filter((it) => it !== NOTHING);
    expect(others).toEqual([line, line]);
  });
});

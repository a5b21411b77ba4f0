import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { advance, isExpected } from "../../../../agent/core/update/machine.ts";
import { readRecord } from "../../../../agent/core/update/read-record.ts";
import { EMPTY_RECORD, type AgentRecord } from "../../../../agent/core/update/record.ts";
import type { State } from "../../../../agent/core/update/states.ts";
import type { Event } from "../../../../agent/core/update/events.ts";
import { LATER_KEY, ofLaterVersion } from "../../../support/other-version.ts";
import { sampleDigest, samplePath, sampleRelease } from "../../../support/sample-release.ts";

const AT = "2026-02-01T00:00:00.000Z";
const BOOT_ID = "11111111-1111-4111-8111-111111111111";
const OLD = samplePath("nixos-system-web1-0");
const BASELINE = {
  ...{ profile: OLD, generation: 3, running: OLD },
  ...{ failedUnits: [], restartedUnits: [], activeUnits: ["sshd.service"] },
};
const reason = { code: "ACTIVATION_FAILED", message: "it failed" } as const;
const release = sampleRelease();
const attempt = { release, attempts: 1 };
const prepared = { ...attempt, baseline: BASELINE, bootId: BOOT_ID, restarts: 0 };

/** One of each. */
const STATES: readonly State[] = [
  { name: "Idle" },
  { name: "Candidate", ...attempt },
  { name: "Fetching", ...attempt },
  { name: "Imported", ...attempt },
  { name: "Staged", ...prepared },
  { name: "Activating", ...prepared },
  { name: "Verifying", ...prepared, afterBoot: false },
  { name: "Committing", ...prepared, rebootNeeded: false },
  { name: "Armed", ...prepared },
  { name: "Committed", ...prepared },
  { name: "RollingBack", ...prepared, reason, deny: true, rollbackAttempts: 0 },
  { name: "RolledBack", ...prepared, reason, deny: false },
  { name: "Reverting", from: OLD, target: { toplevel: OLD, generation: 3 }, failures: 0 },
  { name: "Failed", ...attempt, reason, retryAt: AT },
];
const NAMES = STATES.map((state) => [state.name, state] as const);

const COMMITTED = {
  ...{ channel: "stable", sequence: 1, digest: sampleDigest("1"), toplevel: OLD },
  ...{ mode: "switch", at: AT, previous: null },
} as const;
const FULL: AgentRecord = {
  ...EMPTY_RECORD,
  trust: [{ channel: "stable", sequence: 1, digest: sampleDigest("1"), createdAt: AT }],
  committed: COMMITTED,
  earlier: [{ ...COMMITTED, toplevel: samplePath("nixos-system-web1-00") }],
  denied: [{ toplevel: samplePath("bad"), sequence: 2, digest: sampleDigest("2"), reason, at: AT }],
  pendingReboot: {
    ...{ release, wayBack: false, baseline: BASELINE, attempts: 0 },
    ...{ bootId: BOOT_ID, requested: 0 },
  },
  failingSnippets: [{ toplevel: OLD, snippets: ["etc"] }],
};

/** What is read of a record that another version wrote; it has to be one. */
function read(json: unknown): NonNullable<ReturnType<typeof readRecord>> {
  const found = readRecord(structuredClone(json));
  if (!found) throw new Error("expected a record");
  return found;
}

/** The same with a state of a later version, as far as types go. */
function withState(state: object): object {
  return { ...FULL, state };
}

describe.each(NAMES)("a record in %s", (_, state) => {
  test("of a later version keeps every key that is not known, at every depth", () => {
    const later = ofLaterVersion({ ...FULL, state });
    expect(read(later)).toEqual({ record: later, written: null, problems: [] });
  });

  test("of a later version keeps them through every event", () => {
    const { record } = read(ofLaterVersion({ ...FULL, state }));
    const events: readonly Event[] = [
      { type: "ReleaseAccepted", at: AT, release: sampleRelease({ sequence: 9 }) },
      { type: "FetchBegun", at: AT },
      { type: "ClosureImported", at: AT },
      { type: "BaselineRecorded", at: AT, baseline: BASELINE, bootId: BOOT_ID },
      { type: "AgentRestarted", at: AT },
      { type: "ActivationBegun", at: AT },
      { type: "ActivationSucceeded", at: AT },
      { type: "HealthConfirmed", at: AT },
      { type: "CommitBegun", at: AT, rebootNeeded: false },
      { type: "BootDefaultSet", at: AT, bootId: BOOT_ID },
      { type: "TrialArmed", at: AT, bootId: BOOT_ID },
      { type: "ActivationRejected", at: AT, reason },
      { type: "ActivationInterrupted", at: AT, reason },
      { type: "RollbackSucceeded", at: AT },
      { type: "RollbackFailed", at: AT, message: "no" },
      { type: "AttemptFailed", at: AT, reason, retryAt: AT },
      { type: "LeftoversRemoved", at: AT, retryAt: AT },
      { type: "RebootNoticed", at: AT, bootId: "another" },
    ];
    for (const event of events.filter(({ type }) => isExpected(state.name, type))) {
      const after = advance(record, event);
      expect(after, event.type).toHaveProperty(LATER_KEY);
      for (const part of [...after.trust, ...(after.earlier ?? [])]) {
        expect(part, event.type).toHaveProperty(LATER_KEY);
      }
      expect(JSON.stringify(after.denied), event.type).toContain(LATER_KEY);
      // A state of the same update has what the one before had.
      const goesOn = "release" in after.state && after.state.release.sequence !== 9;
      if (goesOn) expect(after.state, event.type).toHaveProperty(LATER_KEY);
      if (goesOn && "baseline" in after.state && event.type !== "BaselineRecorded") {
        expect(after.state.baseline, event.type).toHaveProperty(LATER_KEY);
      }
    }
  });

  test("that no version had yet, but is to be read as this one, is", () => {
    const soaking = { name: "Soaking", until: AT, readAs: { ...state, [LATER_KEY]: 1 } };
    const found = read(withState(soaking));
    expect(found.record.state).toEqual({ ...state, [LATER_KEY]: 1 });
    expect(found).toMatchObject({ written: soaking, problems: [] });
    const chained = { name: "Drying", readAs: soaking };
    expect(read(withState(chained))).toMatchObject({ written: chained, record: { state } });
  });
});

describe("a state that is not known", () => {
  test("leads back, if a way back is recorded, and nothing else is lost", () => {
    const soaking = { name: "Soaking", ...prepared, undone: 2, [LATER_KEY]: 1 };
    const { record, written, problems } = read(withState(soaking));
    expect(record).toMatchObject({ ...FULL, state: { name: "RollingBack", ...prepared } });
    expect(record.state).toMatchObject({ undone: 2, deny: false, [LATER_KEY]: 1 });
    expect(record.state).toMatchObject({ reason: { code: "STATE_UNKNOWN" } });
    expect(written).toBeNull();
    expect(problems.join()).toMatch(/left the state Soaking.*goes back to the system/);
  });

  test.each<[string, object]>([
    [
      "unreadable units",
      { baseline: { ...BASELINE, failedUnits: [{ unit: "a" }], activeUnits: 7 } },
    ],
    ["an unreadable mode", { release: { ...release, mode: 7 } }],
    ["unreadable checks", { release: { ...release, checks: [{ kind: "later" }] } }],
  ])("leads back all the same with %s", (_, changes) => {
    const { record } = read(withState({ name: "Soaking", ...prepared, ...changes }));
    expect(record.state).toMatchObject({
      name: "RollingBack",
      baseline: { profile: OLD, running: OLD },
      release: { toplevel: release.toplevel },
    });
  });

  test("leads back by what the state has that it is to be read as", () => {
    const drying = { name: "Drying", ...prepared };
    const { record } = read(withState({ name: "Soaking", readAs: drying }));
    expect(record.state).toMatchObject({ name: "RollingBack", baseline: BASELINE });
  });

  test("leads to rest, if no way back is recorded, and nothing else is lost", () => {
    for (const soaking of [
      { name: "Soaking" },
      { name: "Soaking", ...attempt },
      { name: "Soaking", readAs: { name: "Drying" } },
      { name: "Soaking", readAs: null },
    ]) {
      const { record, problems } = read(withState(soaking));
      expect(record).toEqual({ ...FULL, state: { name: "Idle" } });
      expect(problems.join()).toMatch(/left the state Soaking.*at rest/);
    }
  });

  test("is no endless chain", () => {
    let state: object = { name: "Idle" };
    for (let depth = 0; depth < 20; depth++) state = { name: "Soaking", readAs: state };
    expect(read(withState(state)).problems).toHaveLength(1);
  });
});

describe("values that are not known", () => {
  test("of codes and modes stay what they are", () => {
    const other = { code: "CODE_OF_0_2", message: "m" };
    const mode = "live";
    const json = {
      ...FULL,
      state: {
        name: "Failed",
        ...attempt,
        release: { ...release, mode },
        reason: other,
        retryAt: AT,
      },
      committed: { ...COMMITTED, mode },
      denied: FULL.denied.map((it) => ({ ...it, reason: other, mode })),
    };
    expect(read(json)).toEqual({ record: json, written: null, problems: [] });
  });

  test("of a part in another form cost that part, and are named", () => {
    const [good] = FULL.denied;
    const json = { ...FULL, committed: 7, denied: [good, { odd: true }], holdsRebootSlot: "yes" };
    const { record, problems } = read(json);
    expect(record).toEqual({ ...FULL, committed: null, denied: [good], holdsRebootSlot: false });
    expect(problems.map((it) => /wrote (\w+)/.exec(it)?.[1])).toEqual([
      "committed",
      "denied",
      "holdsRebootSlot",
    ]);
  });
});

test("a record of an earlier version, which lacks keys, has their defaults, without a word", () => {
  const { formatVersion, state, trust } = FULL;
  expect(read({ formatVersion, state, trust })).toEqual({
    ...{ record: { ...EMPTY_RECORD, trust }, written: null, problems: [] },
  });
});

test("a record of a later format version is read, and keeps its number", () => {
  const json = { ...FULL, formatVersion: 2 };
  expect(read(json)).toEqual({ record: json, written: null, problems: [] });
});

test("what no version wrote is no record", () => {
  for (const json of [null, 7, [], {}, { ...FULL, state: undefined }, { ...FULL, trust: null }]) {
    expect(readRecord(json)).toBeNull();
  }
});

test("nothing makes reading throw", () => {
  fc.assert(
    fc.property(fc.constantFrom(...Object.keys(FULL)), fc.jsonValue(), (key, value) => {
      const found = readRecord({ ...FULL, [key]: value });
      if (found) expect(found.record.formatVersion).toBeGreaterThan(0);
    }),
    { numRuns: 500 },
  );
});

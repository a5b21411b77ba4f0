import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { advance } from "../../../../agent/core/update/machine.ts";
import type { Event, EventType } from "../../../../agent/core/update/events.ts";
import { EMPTY_RECORD, type PendingReboot } from "../../../../agent/core/update/record.ts";
import type { State, StateName } from "../../../../agent/core/update/states.ts";
import { TRANSITIONS } from "../../../../agent/core/update/transitions.ts";
import { samplePath, sampleRelease } from "../../../support/sample-release.ts";

const DOCUMENT = fileURLToPath(new URL("../../../../agent/docs/state-machine.md", import.meta.url));
const AT = "2026-02-01T00:00:00.000Z";
const REASON = { code: "HEALTH_FAILED", message: "sick" } as const;
const RELEASE = sampleRelease();
const OLD = samplePath("nixos-system-web1-0");
const BASELINE = {
  ...{ profile: OLD, generation: 3, running: OLD, failedUnits: [], restartedUnits: [] },
};
const PENDING: PendingReboot = {
  ...{ release: RELEASE, wayBack: false, baseline: BASELINE, attempts: 2 },
  ...{ bootId: "first", requested: 1 },
};

const attempted = { release: RELEASE, attempts: 1 };
const prepared = { ...attempted, baseline: BASELINE, bootId: "first", restarts: 4 };
const STATES: { readonly [Name in StateName]: Extract<State, { name: Name }> } = {
  Idle: { name: "Idle" },
  Candidate: { name: "Candidate", ...attempted },
  Fetching: { name: "Fetching", ...attempted },
  Imported: { name: "Imported", ...attempted },
  Staged: { name: "Staged", ...prepared },
  Activating: { name: "Activating", ...prepared },
  Verifying: { name: "Verifying", ...prepared, afterBoot: true },
  Committing: { name: "Committing", ...prepared, rebootNeeded: true },
  Armed: { name: "Armed", ...prepared },
  Committed: { name: "Committed", ...prepared },
  RollingBack: {
    ...{ name: "RollingBack", ...prepared, reason: REASON, deny: false, rollbackAttempts: 5 },
  },
  RolledBack: { name: "RolledBack", ...prepared, reason: REASON, deny: false },
  Reverting: {
    ...{ name: "Reverting", from: OLD, target: { toplevel: OLD, generation: 3 }, failures: 6 },
  },
  Failed: { name: "Failed", ...attempted, reason: REASON, retryAt: AT },
};
const EVENTS: { readonly [Type in EventType]: Extract<Event, { type: Type }> } = {
  ReleaseAccepted: { type: "ReleaseAccepted", at: AT, release: RELEASE },
  ReleaseWithdrawn: { type: "ReleaseWithdrawn", at: AT, message: "gone" },
  AlreadyActive: { type: "AlreadyActive", at: AT, release: RELEASE, previous: null },
  FetchBegun: { type: "FetchBegun", at: AT },
  ClosureImported: { type: "ClosureImported", at: AT },
  BaselineRecorded: { type: "BaselineRecorded", at: AT, baseline: BASELINE, bootId: "second" },
  AgentRestarted: { type: "AgentRestarted", at: AT },
  ActivationBegun: { type: "ActivationBegun", at: AT },
  ActivationSucceeded: { type: "ActivationSucceeded", at: AT },
  HealthConfirmed: { type: "HealthConfirmed", at: AT },
  CommitBegun: { type: "CommitBegun", at: AT, rebootNeeded: true },
  BootDefaultSet: { type: "BootDefaultSet", at: AT, bootId: "second" },
  TrialArmed: { type: "TrialArmed", at: AT, bootId: "second" },
  ActivationRejected: { type: "ActivationRejected", at: AT, reason: REASON },
  ActivationInterrupted: { type: "ActivationInterrupted", at: AT, reason: REASON },
  RollbackSucceeded: { type: "RollbackSucceeded", at: AT },
  RollbackFailed: { type: "RollbackFailed", at: AT, message: "no" },
  RevertBegun: {
    ...{ type: "RevertBegun", at: AT, from: OLD, reason: REASON },
    target: { toplevel: OLD, generation: 3 },
  },
  RevertSucceeded: { type: "RevertSucceeded", at: AT },
  RevertFailed: { type: "RevertFailed", at: AT, message: "no" },
  AttemptFailed: { type: "AttemptFailed", at: AT, reason: REASON, retryAt: AT },
  LeftoversRemoved: { type: "LeftoversRemoved", at: AT, retryAt: AT },
  RebootRequested: { type: "RebootRequested", at: AT },
  RebootPrepared: { type: "RebootPrepared", at: AT },
  RebootEnded: { type: "RebootEnded", at: AT },
  RebootNoticed: { type: "RebootNoticed", at: AT, bootId: "second" },
  RebootSlotTaken: { type: "RebootSlotTaken", at: AT },
  RebootSlotReleased: { type: "RebootSlotReleased", at: AT },
};

/** Changes of plan that are possible in several states, and what leads nowhere else. */
const NOT_DRAWN: readonly EventType[] = [
  ...(["ReleaseAccepted", "ReleaseWithdrawn", "AlreadyActive", "RevertBegun"] as const),
  ...(["RebootNoticed", "RebootRequested", "RebootSlotTaken", "RebootSlotReleased"] as const),
  ...(["AgentRestarted", "RevertFailed", "RebootPrepared", "RebootEnded"] as const),
];

/** `STATE EVENT STATE` for each arrow of the diagram in the document. */
function drawn(): Set<string> {
  const diagram = /```mermaid\n(.*?)```/s.exec(readFileSync(DOCUMENT, "utf8"))?.[1] ?? "";
  const arrows = diagram.matchAll(/^ *(\w+) --> (\w+): (.+)$/gm);
  return new Set(
    [...arrows].flatMap(([, from, to, label = ""]) =>
      label.split(", ").map((text) => `${from} ${text.split(" ")[0]} ${to}`),
    ),
  );
}

function isName<Name extends string>(
  names: Readonly<Record<Name, unknown>>,
  text: string,
): text is Name {
  return Object.hasOwn(names, text);
}

/** Where an event leads from a state; with a pending reboot, which is what there is to notice. */
function target(from: StateName, type: EventType, state: State = STATES[from]): StateName {
  return advance({ ...EMPTY_RECORD, state, pendingReboot: PENDING }, EVENTS[type]).state.name;
}

test("every arrow of the diagram is a transition, and leads where it says", () => {
  expect(drawn().size).toBeGreaterThan(30);
  for (const arrow of drawn()) {
    const [from = "", type = "", to] = arrow.split(" ");
    if (!isName(STATES, from) || !isName(EVENTS, type)) throw new Error(`unknown: ${arrow}`);
    const states: State[] = [STATES[from]];
    if (from === "RolledBack") states.push({ ...STATES.RolledBack, deny: true });
    expect(states.map((state) => target(from, type, state))).toContain(to);
  }
});

test("every transition that leads on is drawn", () => {
  const arrows = drawn();
  for (const from of Object.keys(STATES) as StateName[]) {
    for (const type of Object.keys(TRANSITIONS[from]) as EventType[]) {
      if (NOT_DRAWN.includes(type)) continue;
      const arrow = `${from} ${type} ${target(from, type)}`;
      // A step that can be rejected before it began has the same arrow as its successor.
      if (arrow === "Staged ActivationRejected RollingBack") continue;
      expect([...arrows]).toContain(arrow);
    }
  }
});

test("a step forward keeps the release, its attempts, its way back and its boot", () => {
  for (const from of ["Staged", "Activating", "Verifying", "Committing", "RollingBack"] as const) {
    for (const type of Object.keys(TRANSITIONS[from]) as EventType[]) {
      if (type === "AgentRestarted" || type === "AttemptFailed" || type === "ReleaseAccepted")
        continue;
      const { state } = advance({ ...EMPTY_RECORD, state: STATES[from] }, EVENTS[type]);
      expect(state).toMatchObject(prepared);
    }
  }
});

test("a mode that leaves the boot default alone leaves the reboot that waits for it", () => {
  const release = sampleRelease({ mode: "test", toplevel: samplePath("tested") });
  const state: State = { ...STATES.Verifying, release, afterBoot: false };
  const record = { ...EMPTY_RECORD, state, pendingReboot: PENDING };
  expect(advance(record, EVENTS.HealthConfirmed).pendingReboot).toBe(PENDING);
  const switched = { ...record, state: { ...state, release: RELEASE } };
  expect(advance(switched, EVENTS.HealthConfirmed).pendingReboot).toBeNull();
});

test("what becomes the boot default with a reboot to come waits for it, and nothing else does", () => {
  const record = { ...EMPTY_RECORD, state: STATES.Committing, pendingReboot: PENDING };
  expect(advance(record, EVENTS.BootDefaultSet).pendingReboot).toEqual({
    ...{ release: RELEASE, wayBack: false, baseline: BASELINE, attempts: 1 },
    ...{ bootId: "second", requested: 0 },
  });
  const proven = { ...record, state: { ...STATES.Committing, rebootNeeded: false } };
  expect(advance(proven, EVENTS.BootDefaultSet).pendingReboot).toBeNull();
});

test("a way back that needs a boot waits for it", () => {
  const record = { ...EMPTY_RECORD, state: STATES.RollingBack };
  const { pendingReboot } = advance(record, { ...EVENTS.RollbackSucceeded, rebootFrom: "second" });
  expect(pendingReboot).toMatchObject({ wayBack: true, bootId: "second", attempts: 1 });
  expect(advance(record, EVENTS.RollbackSucceeded).pendingReboot).toBeNull();
});

test("only the system that is rolled back is committed no longer", () => {
  const committed = {
    ...{
      channel: "stable",
      sequence: 6,
      digest: RELEASE.digest,
      toplevel: OLD,
      mode: "switch" as const,
    },
    ...{ at: AT, previous: null },
  };
  for (const type of ["ActivationRejected", "ActivationInterrupted"] as const) {
    const record = { ...EMPTY_RECORD, state: STATES.Verifying, committed };
    expect(advance(record, EVENTS[type]).committed).toBe(committed);
    const own = { ...committed, toplevel: RELEASE.toplevel };
    expect(advance({ ...record, committed: own }, EVENTS[type]).committed).toBeNull();
  }
});

test("counters count by one", () => {
  const next = (from: StateName, type: EventType): State =>
    advance({ ...EMPTY_RECORD, state: STATES[from] }, EVENTS[type]).state;
  expect(next("RollingBack", "RollbackFailed")).toMatchObject({ rollbackAttempts: 6 });
  expect(next("Reverting", "RevertFailed")).toMatchObject({ failures: 7 });
  expect(next("Verifying", "AgentRestarted")).toMatchObject({ restarts: 5 });
  expect(next("Fetching", "AttemptFailed")).toMatchObject({ attempts: 2 });
  expect(next("RolledBack", "LeftoversRemoved")).toMatchObject({ attempts: 2 });
  expect(next("Verifying", "ActivationRejected")).toMatchObject({ rollbackAttempts: 0 });
});

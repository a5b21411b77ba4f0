import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { advance, judgeBoot } from "../../../../agent/core/update/machine.ts";
import { isPastTheLine, type State, type StateName } from "../../../../agent/core/update/states.ts";
import type { Event, EventType } from "../../../../agent/core/update/events.ts";
import {
  EMPTY_RECORD,
  type AgentRecord,
  type PendingReboot,
} from "../../../../agent/core/update/record.ts";
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
  WayBackMissed: { type: "WayBackMissed", at: AT, bootId: "third", message: "again" },
  BootCalledOff: {
    ...{ type: "BootCalledOff", at: AT, runs: false },
    reason: { code: "BOOT_CALLED_OFF", message: "withdrawn" },
  },
  ChangedByHand: { type: "ChangedByHand", at: AT, reason: REASON, retryAt: AT },
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
  RebootRefused: { type: "RebootRefused", at: AT },
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
  "RebootRefused",
  "BootCalledOff",
  "WayBackMissed",
];

const OWED: readonly EventType[] = [
  ...(["RollbackSucceeded", "RollbackFailed", "RevertSucceeded", "ChangedByHand"] as const),
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
      // Of a way back that is owed beside what is under way.
      if (!isPastTheLine(STATES[from]) && OWED.includes(type)) continue;
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
      if (type === "ChangedByHand" || type === "RevertBegun") continue;
      const { state } = advance({ ...EMPTY_RECORD, state: STATES[from] }, EVENTS[type]);
      // A way back counts its own restarts.
      const isBack = state.name === "RollingBack" && from !== "RollingBack";
      expect(state).toMatchObject(isBack ? { ...prepared, restarts: 0 } : prepared);
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
  const advanced = { ...EVENTS.AttemptFailed, advanced: true };
  const failed = advance({ ...EMPTY_RECORD, state: STATES.Fetching }, advanced);
  expect(failed.state).toMatchObject({ attempts: 1 });
  expect(next("RolledBack", "LeftoversRemoved")).toMatchObject({ attempts: 2 });
  expect(next("Verifying", "ActivationRejected")).toMatchObject({ rollbackAttempts: 0 });
});

describe("a trial", () => {
  const TRIAL: PendingReboot = { ...PENDING, trial: true };
  const OTHER = samplePath("nixos-system-web1-other");
  const committed = {
    ...{ channel: "stable", sequence: 6, digest: RELEASE.digest, toplevel: OLD },
    ...{ mode: "switch" as const, at: AT, previous: null },
  };
  const next = (record: Partial<AgentRecord>, event: Event): AgentRecord =>
    advance({ ...EMPTY_RECORD, committed, ...record }, event);
  const trialOf = (name: "Verifying" | "Committing"): AgentRecord["state"] =>
    name === "Verifying"
      ? { ...STATES.Verifying, trial: true }
      : { ...STATES.Committing, tried: true };

  test("is armed by the boot that comes next; nothing is committed, and no way back is owed", () => {
    const { state, pendingReboot, ...rest } = next(
      { state: STATES.Committing, unfinishedWayBack: STATES.RollingBack },
      EVENTS.TrialArmed,
    );
    expect(state).toEqual({ name: "Armed", ...prepared });
    expect(pendingReboot).toEqual({
      ...{ release: RELEASE, wayBack: false, baseline: BASELINE, attempts: 1 },
      ...{ bootId: "second", requested: 0, trial: true },
    });
    expect(rest.committed).toBe(committed);
    expect(rest).not.toHaveProperty("unfinishedWayBack");
  });

  test("is told from a boot of the boot default until it has ended", () => {
    const noticed = (pendingReboot: PendingReboot) =>
      next({ pendingReboot }, EVENTS.RebootNoticed).state;
    const expected = {
      ...{ name: "Verifying", release: RELEASE, attempts: 2, baseline: BASELINE },
      ...{ bootId: "second", restarts: 0, afterBoot: true },
    };
    expect(noticed(TRIAL)).toEqual({ ...expected, trial: true });
    expect(noticed(PENDING)).toEqual(expected);
    const commit = (state: State) => next({ state }, EVENTS.CommitBegun).state;
    const committing = { name: "Committing", ...prepared, rebootNeeded: true };
    expect(commit(trialOf("Verifying"))).toEqual({ ...committing, tried: true });
    expect(commit(STATES.Verifying)).toEqual(committing);
    for (const type of ["ActivationRejected", "ActivationInterrupted"] as const) {
      const deny = type === "ActivationRejected";
      const back = {
        ...{ name: "RollingBack", ...prepared, restarts: 0, reason: REASON, deny },
        rollbackAttempts: 0,
      };
      expect(next({ state: trialOf("Verifying") }, EVENTS[type]).state).toEqual({
        ...{ ...back, trial: true },
      });
      expect(next({ state: STATES.Verifying }, EVENTS[type]).state).toEqual(back);
    }
  });

  test("keeps a system that is found active from being committed before it", () => {
    const tried = next({ pendingReboot: TRIAL }, EVENTS.AlreadyActive);
    expect(tried).toMatchObject({ state: { name: "Idle" }, committed, pendingReboot: TRIAL });
    const proven = next({ pendingReboot: PENDING }, EVENTS.AlreadyActive);
    expect(proven.committed).toMatchObject({ toplevel: RELEASE.toplevel, at: AT, previous: null });
    expect(proven.pendingReboot).toEqual(PENDING);
    const another = { ...TRIAL, release: { ...RELEASE, toplevel: OTHER } };
    expect(next({ pendingReboot: another }, EVENTS.AlreadyActive)).toMatchObject({
      ...{ committed: { toplevel: RELEASE.toplevel }, pendingReboot: null },
    });
  });

  test("that a person leaves is denied in every mode; what is committed stays", () => {
    const leave = (from: string) => ({ ...EVENTS.RevertBegun, from });
    const { toplevel, sequence, digest } = RELEASE;
    const left = next({ pendingReboot: TRIAL }, leave(toplevel));
    expect(left.denied).toEqual([{ toplevel, sequence, digest, reason: REASON, at: AT }]);
    expect(left).toMatchObject({ committed, pendingReboot: null });
    // What no trial brought is nothing that the agent knows.
    expect(next({ pendingReboot: PENDING }, leave(toplevel)).denied).toEqual([]);
    expect(next({ pendingReboot: TRIAL }, leave(OTHER)).denied).toEqual([]);
    const own = next({ pendingReboot: TRIAL }, leave(OLD));
    expect(own).toMatchObject({ committed: null, denied: [{ toplevel: OLD, sequence: 6 }] });
  });

  test("that ended by itself has not left the host with the system", () => {
    const verdict = (state: State) => judgeBoot({ ...EMPTY_RECORD, state }, "second");
    for (const name of ["RollingBack", "RolledBack"] as const) {
      for (const code of ["BOOT_TRIAL_FAILED", "BOOT_NOT_TRIED"] as const) {
        const state: State = { ...STATES[name], reason: { code, message: "" } };
        expect(verdict(state)).toBe("proven");
      }
      expect(verdict(STATES[name])).toBe("rejected");
    }
    expect(verdict(STATES.Verifying)).toBe("open");
    expect(verdict({ ...STATES.Verifying, afterBoot: false })).toBe("proven");
  });
});

test("a release that replaces an active one keeps the mode in which the boot default was set", () => {
  const release = { ...RELEASE, sequence: 8, mode: "test" as const };
  const record = { ...EMPTY_RECORD, pendingReboot: PENDING };
  const after = advance(record, { ...EVENTS.AlreadyActive, release });
  expect(after.pendingReboot).toEqual({ ...PENDING, release: { ...release, mode: "switch" } });
});

test("jobs that failed are kept for the health gate, also if nobody names them", () => {
  const after = (failedJobs?: string[]): State =>
    advance(
      { ...EMPTY_RECORD, state: STATES.Activating },
      { ...EVENTS.ActivationSucceeded, ...(failedJobs && { failedJobs }) },
    ).state;
  const verifying = { name: "Verifying", ...prepared, afterBoot: false };
  expect(after(["a.service"])).toEqual({ ...verifying, failedJobs: ["a.service"] });
  expect(after([])).toEqual({ ...verifying, failedJobs: [] });
  expect(after()).toEqual(verifying);
});

test("what happened may need a reboot other than was expected", () => {
  const pending = (expected: boolean, found?: boolean): PendingReboot | null =>
    advance(
      { ...EMPTY_RECORD, state: { ...STATES.Committing, rebootNeeded: expected } },
      { ...EVENTS.BootDefaultSet, ...(found !== undefined && { rebootNeeded: found }) },
    ).pendingReboot;
  expect([pending(true), pending(false), pending(true, false), pending(false, true)]).toEqual([
    ...[expect.anything(), null, null, expect.anything()],
  ]);
});

describe("a way back without a reboot", () => {
  const { release } = PENDING;
  const pendingAfter = (pendingReboot: PendingReboot, mode = release.mode): unknown => {
    const { baseline } = STATES.RollingBack;
    const state = { ...STATES.RollingBack, release: { ...release, mode } };
    const after = advance(
      { ...EMPTY_RECORD, state: { ...state, baseline }, pendingReboot },
      EVENTS.RollbackSucceeded,
    );
    expect(after.state.name).toBe("RolledBack");
    return after.pendingReboot;
  };

  test("calls off a boot into a release that is not the boot default any more", () => {
    expect(pendingAfter(PENDING, "switch")).toBeNull();
    expect(pendingAfter(PENDING, "boot")).toBeNull();
    expect(pendingAfter(PENDING, "test")).toBe(PENDING);
  });

  test("leaves a boot of the system that is gone back to, and one that leads back", () => {
    const { profile } = STATES.RollingBack.baseline;
    const same = { ...PENDING, release: { ...release, toplevel: profile ?? "" } };
    expect(pendingAfter(same, "switch")).toBe(same);
    const wayBack = { ...PENDING, wayBack: true };
    expect(pendingAfter(wayBack, "switch")).toBe(wayBack);
  });
});

test("an end of a way back is Idle if the system is denied, else a failure that may be final", () => {
  const after = (deny: boolean, gaveUp?: boolean): State =>
    advance(
      { ...EMPTY_RECORD, state: { ...STATES.RolledBack, deny } },
      { ...EVENTS.LeftoversRemoved, ...(gaveUp !== undefined && { gaveUp }) },
    ).state;
  const failed = { ...STATES.Failed, attempts: 2, undone: 1 };
  expect(after(true)).toEqual({ name: "Idle" });
  expect([after(false), after(false, false)]).toEqual([failed, failed]);
  expect(after(false, true)).toEqual({ ...failed, gaveUp: true });
});

test("reboots are counted and noticed only if one is waited for", () => {
  const record = { ...EMPTY_RECORD, state: STATES.Failed };
  for (const type of ["RebootRequested", "RebootNoticed"] as const) {
    expect(advance(record, EVENTS[type])).toBe(record);
  }
  const waiting = { ...record, pendingReboot: PENDING };
  expect(advance(waiting, EVENTS.RebootRequested)).toEqual({
    ...{ ...record, pendingReboot: { ...PENDING, requested: 2 } },
  });
  const back = { ...record, pendingReboot: { ...PENDING, wayBack: true } };
  expect(advance(back, EVENTS.RebootNoticed)).toEqual(record);
});

test("a reboot slot is remembered from its taking to its release", () => {
  const taken = advance(EMPTY_RECORD, EVENTS.RebootSlotTaken);
  expect(taken).toEqual({ ...EMPTY_RECORD, holdsRebootSlot: true });
  expect(advance(taken, EVENTS.RebootSlotReleased)).toEqual(EMPTY_RECORD);
});

test("a host may be between two systems from the recording of its way back to its end", () => {
  const names = Object.values(STATES).filter(isPastTheLine);
  expect(names.map(({ name }) => name)).toEqual([
    ...["Staged", "Activating", "Verifying", "Committing", "Armed", "Committed"],
    ...["RollingBack", "RolledBack", "Reverting"],
  ]);
});

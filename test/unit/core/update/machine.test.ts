import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  EMPTY_RECORD,
  denialOf,
  speaksAgainst,
  recordSchema,
  type AgentRecord,
  snippetsOf,
  withDenial,
  withSnippets,
} from "../../../../agent/core/update/record.ts";
import {
  advance,
  isExpected,
  judgeBoot,
  isTransient,
  type BootVerdict,
} from "../../../../agent/core/update/machine.ts";
import {
  isPastTheLine,
  stateSchema,
  type State,
  type StateName,
} from "../../../../agent/core/update/states.ts";
import type { Event, EventType } from "../../../../agent/core/update/events.ts";
import { ERROR_CODES } from "../../../../agent/core/errors.ts";
import { setsProfile } from "../../../../agent/core/update/activation.ts";
import { ACTIVATION_MODES, type ActivationMode } from "../../../../agent/core/formats/manifest.ts";
import { sampleDigest, samplePath, sampleRelease } from "../../../support/sample-release.ts";

const AT = "2026-02-01T00:00:00.000Z";
const REASON = { code: "ACTIVATION_FAILED", message: "it failed" } as const;
const BASELINE = {
  profile: samplePath("nixos-system-web1-0"),
  generation: 3,
  running: samplePath("nixos-system-web1-0"),
  failedUnits: ["old.service"],
  restartedUnits: ["restless.service"],
};
const BOOT_ID = "11111111-1111-4111-8111-111111111111";
const NEXT_BOOT_ID = "22222222-2222-4222-8222-222222222222";

const STATE_NAMES = stateSchema.options.map((option) => option.shape.name.value);

const times = fc
  .date({ min: new Date(0), max: new Date("2100-01-01"), noInvalidDate: true })
  .map((date) => date.toISOString());
const releases = fc
  .record({ sequence: fc.integer({ min: 1, max: 4 }), mode: fc.constantFrom(...ACTIVATION_MODES) })
  .map(({ sequence, mode }) =>
    sampleRelease({
      sequence,
      mode,
      digest: sampleDigest(`release ${sequence}`),
      // Two releases share a system.
      toplevel: samplePath(`nixos-system-web1-${Math.min(sequence, 3)}`),
    }),
  );
const reasons = fc.record({ code: fc.constantFrom(...ERROR_CODES), message: fc.string() });
const bootIds = fc.constantFrom(BOOT_ID, NEXT_BOOT_ID);
const paths = fc.constantFrom(null, BASELINE.profile, samplePath("nixos-system-web1-9"));

/** One arbitrary for each event; a missing one does not compile. */
const EVENTS: { [Type in EventType]: fc.Arbitrary<Extract<Event, { type: Type }>> } = {
  ReleaseAccepted: fc.record({
    type: fc.constant("ReleaseAccepted"),
    at: times,
    release: releases,
  }),
  RebootPrepared: fc.record({ type: fc.constant("RebootPrepared"), at: times }),
  RebootEnded: fc.record({ type: fc.constant("RebootEnded"), at: times }),
  TrialArmed: fc.record({ type: fc.constant("TrialArmed"), at: times, bootId: bootIds }),
  ReleaseWithdrawn: fc.record({
    type: fc.constant("ReleaseWithdrawn"),
    at: times,
    message: fc.string(),
  }),
  AlreadyActive: fc.record({
    type: fc.constant("AlreadyActive"),
    at: times,
    release: releases,
    previous: paths,
  }),
  FetchBegun: fc.record({ type: fc.constant("FetchBegun"), at: times }),
  ClosureImported: fc.record({ type: fc.constant("ClosureImported"), at: times }),
  BaselineRecorded: fc.record({
    type: fc.constant("BaselineRecorded"),
    at: times,
    baseline: fc.record({
      profile: paths,
      generation: fc.option(fc.integer({ min: 1, max: 99 })),
      running: paths,
      failedUnits: fc.array(fc.constantFrom("a.service", "b.service"), { maxLength: 2 }),
      restartedUnits: fc.array(fc.constantFrom("a.service", "c.service"), { maxLength: 2 }),
    }),
    bootId: bootIds,
  }),
  AgentRestarted: fc.record({ type: fc.constant("AgentRestarted"), at: times }),
  ActivationBegun: fc.record({ type: fc.constant("ActivationBegun"), at: times }),
  ActivationSucceeded: fc.record(
    { type: fc.constant("ActivationSucceeded"), at: times, message: fc.string() },
    { requiredKeys: ["type", "at"] },
  ),
  HealthConfirmed: fc.record({ type: fc.constant("HealthConfirmed"), at: times }),
  ChangedByHand: fc.record(
    {
      ...{ type: fc.constant("ChangedByHand"), at: times, reason: reasons, retryAt: times },
      gaveUp: fc.boolean(),
    },
    { requiredKeys: ["type", "at", "reason", "retryAt"] },
  ),
  CommitBegun: fc.record({
    type: fc.constant("CommitBegun"),
    at: times,
    rebootNeeded: fc.boolean(),
  }),
  BootDefaultSet: fc.record({
    type: fc.constant("BootDefaultSet"),
    at: times,
    bootId: bootIds,
  }),
  ActivationRejected: fc.record({
    type: fc.constant("ActivationRejected"),
    at: times,
    reason: reasons,
  }),
  ActivationInterrupted: fc.record({
    type: fc.constant("ActivationInterrupted"),
    at: times,
    reason: reasons,
  }),
  RollbackSucceeded: fc.record(
    { type: fc.constant("RollbackSucceeded"), at: times, rebootFrom: bootIds },
    { requiredKeys: ["type", "at"] },
  ),
  RollbackFailed: fc.record({
    type: fc.constant("RollbackFailed"),
    at: times,
    message: fc.string(),
  }),
  AttemptFailed: fc.record({
    type: fc.constant("AttemptFailed"),
    at: times,
    reason: reasons,
    retryAt: times,
  }),
  LeftoversRemoved: fc.record({
    type: fc.constant("LeftoversRemoved"),
    at: times,
    retryAt: times,
  }),
  RevertBegun: fc.record({
    type: fc.constant("RevertBegun"),
    at: times,
    from: fc.constantFrom(null, ...[1, 2, 3].map((n) => samplePath(`nixos-system-web1-${n}`))),
    target: fc.constant({ toplevel: samplePath("nixos-system-web1-0"), generation: 3 }),
    reason: reasons,
  }),
  RevertSucceeded: fc.record(
    { type: fc.constant("RevertSucceeded"), at: times, needsReboot: fc.boolean() },
    { requiredKeys: ["type", "at"] },
  ),
  RevertFailed: fc.record({
    type: fc.constant("RevertFailed"),
    at: times,
    message: fc.string(),
  }),
  RebootRequested: fc.record({ type: fc.constant("RebootRequested"), at: times }),
  RebootRefused: fc.record({ type: fc.constant("RebootRefused"), at: times }),
  WayBackMissed: fc.record({
    ...{ type: fc.constant("WayBackMissed"), at: times, bootId: bootIds, message: fc.string() },
  }),
  BootCalledOff: fc.record({
    ...{ type: fc.constant("BootCalledOff"), at: times, runs: fc.boolean() },
    reason: fc.record({ code: fc.constant("BOOT_CALLED_OFF"), message: fc.string() }),
  }),
  RebootNoticed: fc.record({ type: fc.constant("RebootNoticed"), at: times, bootId: bootIds }),
  RebootSlotTaken: fc.record({ type: fc.constant("RebootSlotTaken"), at: times }),
  RebootSlotReleased: fc.record({ type: fc.constant("RebootSlotReleased"), at: times }),
};
const EVENT_TYPES = Object.keys(EVENTS) as EventType[];

/** Events of a way back that is owed beside what is under way. */
const OF_WAY_BACK: readonly EventType[] = [
  ...(["AgentRestarted", "RollbackSucceeded", "RollbackFailed", "RevertSucceeded"] as const),
  ...(["RevertFailed", "ChangedByHand"] as const),
];
const UNTOUCHED: readonly StateName[] = ["Idle", "Candidate", "Fetching", "Imported", "Failed"];

function isOwed(state: StateName, type: EventType): boolean {
  return UNTOUCHED.includes(state) && OF_WAY_BACK.includes(type);
}

/** Whether an event leads on from a state, where another one only changes the plan. */
function leadsOn(state: StateName, type: EventType): boolean {
  if (!isExpected(state, type) || isOwed(state, type)) return false;
  switch (type) {
    case "ReleaseWithdrawn":
    case "AlreadyActive":
    case "RebootSlotTaken":
    case "RebootSlotReleased":
    case "RebootPrepared":
    case "RebootEnded":
    case "RebootRefused":
    case "WayBackMissed":
      return false;
    case "ChangedByHand":
      return state === "Verifying";
    case "ReleaseAccepted":
    case "RebootNoticed":
    case "BootCalledOff":
      return state === "Idle" || state === "Failed";
    default:
      return true;
  }
}

interface Transition {
  readonly before: AgentRecord;
  readonly event: Event;
  readonly after: AgentRecord;
}

/** Samples of every event; the seed is fixed, so that a life says all about itself. */
const SAMPLES = new Map(
  EVENT_TYPES.map((type) => [type, fc.sample<Event>(EVENTS[type], { numRuns: 40, seed: 7 })]),
);

/** Each number picks one event. */
const lives = fc.array(fc.noBias(fc.nat()), { maxLength: 60, size: "max" });

/**
 * Runs a life of an agent in which only expected events happen. Those that lead on are
 * preferred: else hardly any life would come far.
 */
function live(life: readonly number[]): Transition[] {
  const transitions: Transition[] = [];
  let before = EMPTY_RECORD;
  for (let pick of life) {
    const pickOf = <T>(choices: readonly T[]): T => {
      const choice = choices[pick % choices.length];
      if (choice === undefined) throw new Error("nothing to choose from");
      pick = Math.floor(pick / choices.length);
      return choice;
    };
    const { name } = before.state;
    const allowed = pickOf([isExpected, leadsOn, leadsOn, leadsOn]);
    const type = pickOf(EVENT_TYPES.filter((type) => allowed(name, type)));
    const event = pickOf(SAMPLES.get(type) ?? []);
    const after = advance(before, event);
    transitions.push({ before, event, after });
    before = after;
  }
  return transitions;
}

function everyTransition(check: (transition: Transition) => void): void {
  fc.assert(
    fc.property(lives, (life) => {
      live(life).forEach(check);
    }),
  );
}

function attemptsOf(state: State): number | null {
  return "attempts" in state ? state.attempts : null;
}

/**
 * The system that a person leaves, if a release brought it: what is committed, is to be tried, or
 * failed and was not left yet.
 */
function leftBy(
  { from }: Extract<Event, { type: "RevertBegun" }>,
  { committed, pendingReboot, state }: AgentRecord,
): string | null {
  const isKnown = pendingReboot !== null && (pendingReboot.trial === true || pendingReboot.wayBack);
  const pending = isKnown ? pendingReboot.release : null;
  const failed = state.name === "RollingBack" ? state.release : null;
  return [committed, pending, failed].find((it) => it?.toplevel === from)?.toplevel ?? null;
}

function digestOf(state: State): string | null {
  return "release" in state ? state.release.digest : null;
}

describe("over any life of an agent", () => {
  test("every event is met in every state that expects it", () => {
    const met = new Set<string>();
    for (const life of fc.sample(lives, { numRuns: 10_000, seed: 3 })) {
      for (const { before, event } of live(life)) met.add(`${before.state.name} ${event.type}`);
    }
    const expected = STATE_NAMES.flatMap((name) =>
      EVENT_TYPES.filter((type) => isExpected(name, type)).map((type) => `${name} ${type}`),
    );
    expect([...met].sort()).toEqual(expected.sort());
  });

  test("an unexpected event throws, whatever the record", () => {
    fc.assert(
      fc.property(lives, fc.record(EVENTS), (life, events) => {
        const seen = new Map(live(life).map(({ after }) => [after.state.name, after]));
        for (const after of seen.values()) {
          for (const type of EVENT_TYPES) {
            if (isExpected(after.state.name, type)) continue;
            expect(() => advance(after, events[type])).toThrow(
              `event ${type} cannot happen in state ${after.state.name}`,
            );
          }
        }
      }),
      { numRuns: 30 },
    );
  });

  test("every record is one that can be written and read again", () => {
    everyTransition(({ after }) => {
      const read = recordSchema.parse(JSON.parse(JSON.stringify(after)));
      // Deep equality as `toEqual` has it takes too long for thousands of records.
      if (!isDeepStrictEqual(read, after)) expect(read).toEqual(after);
    });
  });

  test("a release is committed only by health, as the boot default or by being active", () => {
    everyTransition(({ before, event, after }) => {
      if (after.committed === before.committed) {
        expect(["HealthConfirmed", "BootDefaultSet"]).not.toContain(event.type);
        // What waits for its trial is not proven.
        if (event.type === "AlreadyActive") expect(after.pendingReboot?.trial).toBe(true);
        return;
      }
      const { state } = before;
      switch (event.type) {
        case "AlreadyActive": {
          const { channel, sequence, digest, toplevel, mode } = event.release;
          const { closureSize, archive } = event.release;
          const { at, previous } = event;
          expect(after.committed).toEqual({
            ...{ channel, sequence, digest, toplevel, mode, at, previous, closureSize, archive },
          });
          return;
        }
        case "HealthConfirmed":
        case "BootDefaultSet": {
          expect(state.name).toBe(event.type === "HealthConfirmed" ? "Verifying" : "Committing");
          if (!("baseline" in state)) throw new Error("committed without a way back");
          const { channel, sequence, digest, toplevel, mode } = state.release;
          const { closureSize, archive } = state.release;
          expect(after.committed).toEqual({
            ...{ channel, sequence, digest, toplevel, mode, at: event.at, closureSize, archive },
            previous: state.baseline.profile,
          });
          return;
        }
        // Proven by a live switch, it is what the mode `test` leaves; or the host is the one before.
        case "BootCalledOff":
          expect(after.committed?.mode).toBe(event.runs ? "test" : after.committed?.mode);
          expect(after.committed?.toplevel === before.pendingReboot?.release.toplevel).toBe(
            event.runs,
          );
          return;
        // Taken back: by hand, or since it did not survive its boot.
        case "ActivationRejected":
        case "ActivationInterrupted":
          expect(before.committed?.toplevel).toBe("release" in state && state.release.toplevel);
          expect(after.committed).toBeNull();
          return;
        default:
          if (event.type !== "RevertBegun") throw new Error(`taken back by ${event.type}`);
          expect(before.committed?.toplevel).toBe(event.from);
          expect(after.committed).toBeNull();
      }
    });
  });

  test("what was rejected is denied, with its reason, and nothing else ever is", () => {
    everyTransition(({ before, event, after }) => {
      if (event.type === "ActivationRejected") {
        if (!("release" in before.state)) throw new Error("rejected without a release");
        const { toplevel, sequence, digest, mode } = before.state.release;
        const denial = { toplevel, sequence, digest, mode, reason: event.reason, at: event.at };
        // Of a live switch, the denial names what was activated besides.
        const { specialisation: _, ...found } = after.denied.at(-1) ?? {};
        expect(found).toEqual(denial);
        expect(denialOf(after, before.state.release, mode)).toBeDefined();
        expect(after.state).toMatchObject({ name: "RollingBack", deny: true });
      } else if (event.type === "RevertBegun" && leftBy(event, before) !== null) {
        expect(denialOf(after, { toplevel: leftBy(event, before) ?? "" })?.reason).toEqual(
          event.reason,
        );
      } else if (event.type === "HealthConfirmed" || event.type === "BootDefaultSet") {
        if (!("release" in before.state)) throw new Error("committed without a release");
        const { release } = before.state;
        expect(after.denied).toEqual(
          before.denied.filter((entry) => !speaksAgainst(entry, release)),
        );
      } else {
        expect(after.denied).toBe(before.denied);
      }
      if (event.type === "ActivationInterrupted") {
        expect(after.state).toMatchObject({ name: "RollingBack", deny: false });
      }
    });
  });

  test("a system is denied at most once in a mode, and denials vanish only by its commit", () => {
    everyTransition(({ before, event, after }) => {
      const denied = after.denied.map(({ toplevel }) => toplevel);
      const ways = after.denied.map(({ toplevel, mode }) => `${mode ?? "any"} ${toplevel}`);
      expect(new Set(ways).size).toBe(ways.length);
      for (const { toplevel } of before.denied) {
        if (denied.includes(toplevel)) continue;
        expect(["HealthConfirmed", "BootDefaultSet"]).toContain(event.type);
        expect(after.committed?.toplevel).toBe(toplevel);
      }
    });
  });

  test("attempts at the same release grow by one for each that failed or was cut off", () => {
    everyTransition(({ before, event, after }) => {
      const [was, is] = [attemptsOf(before.state), attemptsOf(after.state)];
      if (was === null || is === null) return;
      if (isOwed(before.state.name, event.type)) {
        const isBack = after.state.name === "RolledBack";
        expect(is).toBe(isBack ? (before.unfinishedWayBack?.attempts ?? was) : was);
        return;
      }
      // The attempts are those of the release whose boot was waited for.
      if (event.type === "BootCalledOff") {
        expect(is).toBe(
          before.pendingReboot?.wayBack === false ? before.pendingReboot.attempts : was,
        );
        return;
      }
      if (digestOf(before.state) !== digestOf(after.state)) {
        expect(is).toBe(0);
        return;
      }
      // What becomes of them over a reboot is looked at below.
      if (event.type === "RebootNoticed" && before.pendingReboot) return;
      const ends = ["AttemptFailed", "LeftoversRemoved", "ChangedByHand"];
      expect(is).toBe(ends.includes(event.type) ? was + 1 : was);
    });
  });

  test("undone activations of a system are counted on until another system or mode comes", () => {
    const systemOf = (state: State): string | null =>
      "release" in state ? `${state.release.toplevel} ${state.release.mode}` : null;
    const undoneOf = (state: State): number => ("undone" in state ? (state.undone ?? 0) : 0);
    everyTransition(({ before, event, after }) => {
      const isSame = systemOf(before.state) === systemOf(after.state);
      if (isOwed(before.state.name, event.type) && before.unfinishedWayBack) return;
      if (event.type === "RebootNoticed" && before.pendingReboot) return;
      if (event.type === "BootCalledOff" && before.pendingReboot) return;
      // A system whose way back is barred was tried, too, without being undone.
      const isTriedAgain = event.type === "ReleaseAccepted" && before.state.name === "RollingBack";
      const isUndone = event.type === "LeftoversRemoved" && after.state.name === "Failed";
      const grows = isUndone || (isTriedAgain && isSame);
      const kept = isSame ? undoneOf(before.state) : 0;
      expect(undoneOf(after.state)).toBe(grows ? kept + 1 : kept);
    });
  });

  test("what was rejected is not tried again, what was cut off is, not before its time", () => {
    everyTransition(({ before, event, after }) => {
      if (event.type !== "LeftoversRemoved") return;
      const { state } = before;
      const isCalledOff = "reason" in state && state.reason.code === "BOOT_CALLED_OFF";
      if (state.name === "RolledBack" && !state.deny && !isCalledOff) {
        const { release, attempts, reason, undone = 0 } = state;
        expect(after.state).toEqual({
          ...{ name: "Failed", release, reason, undone: undone + 1 },
          ...{ attempts: attempts + 1, retryAt: event.retryAt },
        });
      } else expect(after.state).toEqual({ name: "Idle" });
    });
  });

  test("a reboot is pending only for a boot default that needs it, until it is over", () => {
    everyTransition(({ before, event, after }) => {
      const { state, pendingReboot: was } = before;
      const is = after.pendingReboot;
      switch (event.type) {
        case "BootDefaultSet": {
          if (state.name !== "Committing") throw new Error("set out of turn");
          const { release, baseline, attempts, rebootNeeded } = state;
          const { bootId } = event;
          const reboot = { release, baseline, attempts, bootId, requested: 0, wayBack: false };
          // The boot in which it was set counts, not the one in which it was begun.
          expect(is).toEqual(rebootNeeded ? reboot : null);
          return;
        }
        case "TrialArmed": {
          if (state.name !== "Committing") throw new Error("armed out of turn");
          const { release, baseline, attempts } = state;
          const { bootId } = event;
          expect(is).toEqual({
            ...{ release, baseline, attempts, bootId, requested: 0, wayBack: false, trial: true },
          });
          expect(after.committed).toBe(before.committed);
          return;
        }
        case "RollbackSucceeded": {
          const left = state.name === "RollingBack" ? state : before.unfinishedWayBack;
          if (left === undefined) {
            expect(after).toBe(before);
            return;
          }
          const { release, baseline, attempts } = left;
          const { rebootFrom: bootId } = event;
          if (bootId === undefined) expect(is).toBe(was);
          else {
            expect(is).toEqual({
              ...{ release, baseline, attempts, bootId, requested: 0, wayBack: true },
            });
          }
          return;
        }
        case "AlreadyActive":
          // The same system, released again, still waits for it, by its new name.
          if (was?.release.toplevel === event.release.toplevel) {
            expect(is).toEqual({ ...was, release: { ...event.release, mode: was.release.mode } });
          } else expect(is).toBeNull();
          return;
        case "HealthConfirmed":
          if (state.name !== "Verifying") throw new Error("confirmed out of turn");
          // What leaves the boot default alone leaves the reboot that waits for it, too.
          if (setsProfile(state.release.mode)) expect(is).toBeNull();
          else expect(is).toBe(was);
          return;
        case "WayBackMissed":
          expect(is).toEqual(was && { ...was, bootId: event.bootId });
          return;
        case "BootCalledOff":
          expect(is).toBe(was?.wayBack ? was : null);
          return;
        case "RebootNoticed":
          expect(is).toBeNull();
          return;
        case "RebootRequested":
          expect(is).toEqual(was && { ...was, requested: was.requested + 1 });
          return;
        case "RebootRefused":
          expect(is).toEqual(was && { ...was, requested: Math.max(0, was.requested - 1) });
          return;
        case "RevertBegun":
          // A person decided what this host is; a way back that leads there, too, is still owed.
          expect(is).toBe(
            was?.wayBack && was.baseline.profile === event.target.toplevel ? was : null,
          );
          return;
        case "RevertSucceeded":
          // Elsewhere it ends a rollback that is still owed, if there is one.
          if (state.name !== "Reverting" && !before.unfinishedRevert) expect(is).toBe(was);
          else expect(is).toBe(event.needsReboot ? was : null);
          return;
        default:
          expect(is).toBe(was);
      }
    });
  });

  test("after a reboot the pending system is verified, with its own way back", () => {
    everyTransition(({ before, event, after }) => {
      if (event.type !== "RebootNoticed") return;
      if (before.pendingReboot === null) {
        expect(after).toEqual(before);
        return;
      }
      const { release, baseline, attempts, wayBack } = before.pendingReboot;
      if (wayBack) {
        expect(after).toEqual({ ...before, pendingReboot: null });
        return;
      }
      const { profile, running } = baseline;
      expect(after.state).toMatchObject({
        ...{ name: "Verifying", release, attempts, bootId: event.bootId },
        // Every other boot starts what the profile points at.
        baseline: { ...baseline, running: profile ?? running },
        ...{ restarts: 0, afterBoot: true },
      });
    });
  });

  test("restarts of the agent are counted, and change nothing else", () => {
    everyTransition(({ before, event, after }) => {
      const was = "restarts" in before.state ? before.state.restarts : null;
      const is = "restarts" in after.state ? after.state.restarts : null;
      if (isOwed(before.state.name, event.type)) {
        const owed = before.unfinishedWayBack;
        if (event.type !== "AgentRestarted") return;
        const restarts = owed && owed.restarts + 1;
        expect(after).toEqual(
          owed ? { ...before, unfinishedWayBack: { ...owed, restarts } } : before,
        );
      } else if (event.type === "AgentRestarted") {
        expect(is).toBe((was ?? NaN) + 1);
        expect(after).toEqual({ ...before, state: { ...before.state, restarts: is } });
      } else if (is !== null) {
        // A way back that was left for another release goes on as it was.
        const resumed = event.type === "ReleaseWithdrawn" ? before.unfinishedWayBack : undefined;
        // Those of a way back are its own.
        const isNew = before.state.name !== "RollingBack" && after.state.name === "RollingBack";
        expect(is).toBe(resumed?.restarts ?? (isNew ? 0 : (was ?? 0)));
      }
    });
  });

  test("a reboot slot is held from its taking to its giving back", () => {
    everyTransition(({ before, event, after }) => {
      if (event.type === "RebootSlotTaken") expect(after.holdsRebootSlot).toBe(true);
      else if (event.type === "RebootSlotReleased") expect(after.holdsRebootSlot).toBe(false);
      else expect(after.holdsRebootSlot).toBe(before.holdsRebootSlot);
    });
  });

  test("the way back does not change between its recording and the end", () => {
    everyTransition(({ before, after }) => {
      if ("baseline" in before.state && "baseline" in after.state) {
        expect(after.state.baseline).toEqual(before.state.baseline);
        expect(after.state.bootId).toBe(before.state.bootId);
      }
    });
  });

  test("past the line a release is neither replaced nor dropped but by its end", () => {
    everyTransition(({ before, event, after }) => {
      if (!isPastTheLine(before.state)) return;
      if (event.type === "LeftoversRemoved" && after.state.name !== "Failed") {
        expect(after.state).toEqual({ name: "Idle" });
      } else if (event.type === "ReleaseAccepted") {
        // The way on, where the way back is barred; when that is so, the app decides.
        expect(["RollingBack", "Reverting"]).toContain(before.state.name);
      } else if (event.type === "RevertBegun") {
        // So does a person who names a generation.
        expect(["RollingBack", "Reverting"]).toContain(before.state.name);
      } else expect(digestOf(after.state)).toBe(digestOf(before.state));
    });
  });

  test("what was accepted is never forgotten", () => {
    everyTransition(({ before, after }) => {
      expect(after.trust).toBe(before.trust);
    });
  });

  test("the record before is left as it was", () => {
    fc.assert(
      fc.property(lives, (life) => {
        let record = EMPTY_RECORD;
        for (const { event, after } of live(life)) {
          const copy = structuredClone(record);
          expect(advance(record, event)).toEqual(after);
          expect(record).toEqual(copy);
          record = after;
        }
      }),
      { numRuns: 20 },
    );
  });
});

describe("the verdict on a boot", () => {
  const waiting = happen(EMPTY_RECORD, ...STAGED_FOR_BOOT);
  const rejected = happen(waiting, REBOOTED, {
    ...{ type: "ActivationRejected", at: AT, reason: REASON },
  });
  const left = happen(rejected, {
    ...{ type: "RollbackSucceeded", at: AT, rebootFrom: NEXT_BOOT_ID },
  });

  test.each<[string, AgentRecord, string, BootVerdict]>([
    ["nothing was waited for", EMPTY_RECORD, BOOT_ID, "proven"],
    ["the reboot has not come", waiting, BOOT_ID, "proven"],
    ["it came and nobody looked yet", waiting, NEXT_BOOT_ID, "open"],
    ["the system is being judged", happen(waiting, REBOOTED), NEXT_BOOT_ID, "open"],
    ["it is being left", rejected, NEXT_BOOT_ID, "rejected"],
    ["only another boot leaves it", happen(left, CLEARED), NEXT_BOOT_ID, "rejected"],
    ["that boot came", happen(left, CLEARED), BOOT_ID, "proven"],
    [
      "it proved healthy",
      happen(waiting, REBOOTED, { type: "HealthConfirmed", at: AT }, CLEARED),
      NEXT_BOOT_ID,
      "proven",
    ],
  ])("where %s", (_, record, bootId, verdict) => {
    expect(judgeBoot(record, bootId)).toBe(verdict);
  });
});

describe("going back by hand", () => {
  const target = { toplevel: samplePath("earlier"), generation: 2 };
  const BY_HAND: Event = {
    ...{ type: "RevertBegun", at: AT, from: samplePath("now"), target, reason: REASON },
  };

  test("is past the line until it is done, however often it fails", () => {
    const begun = happen(EMPTY_RECORD, BY_HAND);
    expect(begun.state).toMatchObject({ name: "Reverting", target, failures: 0 });
    const failed = happen(begun, { type: "RevertFailed", at: AT, message: "no" });
    expect(failed.state).toMatchObject({ name: "Reverting", target, failures: 1 });
    expect(isPastTheLine(failed.state)).toBe(true);
    expect(happen(failed, { type: "RevertSucceeded", at: AT }).state).toEqual({ name: "Idle" });
  });

  test("can be asked for again, elsewhere, while it fails", () => {
    const other = { toplevel: samplePath("still-earlier"), generation: 1 };
    const again = happen(EMPTY_RECORD, BY_HAND, { ...BY_HAND, target: other });
    expect(again.state).toMatchObject({ name: "Reverting", target: other, failures: 0 });
  });
});

describe("an event that a state cannot meet", () => {
  /** A record in each state. */
  const release = sampleRelease();
  const attempt = { release, attempts: 1 };
  const prepared = { ...attempt, baseline: BASELINE, bootId: BOOT_ID, restarts: 0 };
  const reason = { reason: REASON, deny: true };
  const states: { [Name in StateName]: Extract<State, { name: Name }> } = {
    Idle: { name: "Idle" },
    Candidate: { name: "Candidate", ...attempt },
    Fetching: { name: "Fetching", ...attempt },
    Imported: { name: "Imported", ...attempt },
    Staged: { name: "Staged", ...prepared },
    Activating: { name: "Activating", ...prepared },
    Verifying: { name: "Verifying", ...prepared, afterBoot: false },
    Committing: { name: "Committing", ...prepared, rebootNeeded: false },
    Armed: { name: "Armed", ...prepared },
    Committed: { name: "Committed", ...prepared },
    RollingBack: { name: "RollingBack", ...prepared, ...reason, rollbackAttempts: 0 },
    RolledBack: { name: "RolledBack", ...prepared, ...reason },
    Reverting: {
      ...{ name: "Reverting", from: release.toplevel, failures: 0 },
      target: { toplevel: samplePath("nixos-system-web1-0"), generation: 3 },
    },
    Failed: { name: "Failed", ...attempt, reason: REASON, retryAt: AT },
  };

  test.each(STATE_NAMES)("is refused in %s, and all others lead to a valid record", (name) => {
    const record: AgentRecord = { ...EMPTY_RECORD, state: states[name] };
    for (const type of EVENT_TYPES) {
      const [event] = fc.sample<Event>(EVENTS[type], 1);
      if (!event) throw new Error("fast-check gave nothing");
      if (isExpected(name, type)) {
        expect(recordSchema.safeParse(advance(record, event)).success).toBe(true);
      } else {
        expect(() => advance(record, event)).toThrow(
          `event ${type} cannot happen in state ${name}`,
        );
      }
    }
  });

  test("exists for every state, and every event has a state that expects it", () => {
    for (const name of STATE_NAMES) {
      expect(EVENT_TYPES.filter((type) => !isExpected(name, type))).not.toEqual([]);
    }
    for (const type of EVENT_TYPES) {
      expect(STATE_NAMES.filter((name) => isExpected(name, type))).not.toEqual([]);
    }
  });

  test.each(STATE_NAMES)("does not keep %s from finding a way back to Idle", (start) => {
    const events: Event[] = EVENT_TYPES.flatMap((type) => fc.sample<Event>(EVENTS[type], 1));
    const reached = new Map<StateName, State>([[start, states[start]]]);
    for (const [name, state] of reached) {
      for (const event of events.filter(({ type }) => isExpected(name, type))) {
        const next = advance({ ...EMPTY_RECORD, state }, event).state;
        // The map grows while it is walked through.
        if (!reached.has(next.name)) reached.set(next.name, next);
      }
    }
    expect([...reached.keys()]).toContain("Idle");
  });
});

/** Walks through events that need no more than their type. */
function happen(record: AgentRecord, ...events: Event[]): AgentRecord {
  return events.reduce(advance, record);
}

const BEGUN: Event[] = [
  { type: "ReleaseAccepted", at: AT, release: sampleRelease() },
  { type: "FetchBegun", at: AT },
  { type: "ClosureImported", at: AT },
  { type: "BaselineRecorded", at: AT, baseline: BASELINE, bootId: BOOT_ID },
  { type: "ActivationBegun", at: AT },
];
const CLEARED: Event = { type: "LeftoversRemoved", at: AT, retryAt: AT };
const BACK: Event[] = [{ type: "RollbackSucceeded", at: AT }, CLEARED];
/** A release that only a boot proves became the boot default. */
const STAGED_FOR_BOOT: Event[] = [
  ...BEGUN.slice(0, -1),
  { type: "CommitBegun", at: AT, rebootNeeded: true },
  { type: "BootDefaultSet", at: AT, bootId: BOOT_ID },
  CLEARED,
];
const REBOOTED: Event = { type: "RebootNoticed", at: AT, bootId: NEXT_BOOT_ID };
const CUT_OFF: Event = {
  ...{ type: "ActivationInterrupted", at: AT },
  reason: { code: "HEALTH_MIRROR", message: "no mirror" },
};

function committedSample(at: string) {
  const { channel, sequence, digest, toplevel, mode, closureSize, archive } = sampleRelease();
  const previous = BASELINE.profile;
  return { channel, sequence, digest, toplevel, mode, at, previous, closureSize, archive };
}

describe("an update", () => {
  test("that goes well is committed with what was there before, and ends in Idle", () => {
    const proven = happen(EMPTY_RECORD, ...BEGUN, { type: "ActivationSucceeded", at: AT });
    expect(proven.state).toMatchObject({ name: "Verifying", afterBoot: false });
    const begun = happen(proven, { type: "CommitBegun", at: AT, rebootNeeded: false });
    expect(begun.state).toMatchObject({ name: "Committing", rebootNeeded: false });
    expect(begun.committed).toBeNull();
    expect(happen(begun, { type: "BootDefaultSet", at: AT, bootId: BOOT_ID }, CLEARED)).toEqual({
      ...EMPTY_RECORD,
      committed: committedSample(AT),
    });
  });

  test("that does not become the boot default is committed by its health", () => {
    const record = happen(
      EMPTY_RECORD,
      ...BEGUN,
      { type: "ActivationSucceeded", at: AT },
      { type: "HealthConfirmed", at: AT },
      CLEARED,
    );
    expect(record).toEqual({ ...EMPTY_RECORD, committed: committedSample(AT) });
  });

  test("that needs a reboot is committed and waits for it, then proves itself", () => {
    const waiting = happen(EMPTY_RECORD, ...STAGED_FOR_BOOT);
    expect(waiting).toEqual({
      ...EMPTY_RECORD,
      committed: committedSample(AT),
      pendingReboot: {
        ...{ release: sampleRelease(), baseline: BASELINE, bootId: BOOT_ID },
        ...{ attempts: 0, requested: 0, wayBack: false },
      },
    });
    const asked = happen(waiting, { type: "RebootRequested", at: AT });
    expect(asked.pendingReboot?.requested).toBe(1);
    const booted = happen(asked, REBOOTED);
    expect(booted.state).toMatchObject({ name: "Verifying", afterBoot: true, baseline: BASELINE });
    const later = "2026-02-01T01:00:00.000Z";
    expect(happen(booted, { type: "HealthConfirmed", at: later }, CLEARED)).toEqual({
      ...EMPTY_RECORD,
      committed: committedSample(later),
    });
  });

  test("that does not come up healthy after its boot is committed no longer", () => {
    const booted = happen(EMPTY_RECORD, ...STAGED_FOR_BOOT, REBOOTED);
    const rejected = happen(booted, { type: "ActivationRejected", at: AT, reason: REASON });
    expect(rejected).toMatchObject({ committed: null, pendingReboot: null });
    expect(rejected.state).toMatchObject({ name: "RollingBack", baseline: BASELINE, deny: true });
    expect(denialOf(rejected, sampleRelease())?.reason).toEqual(REASON);
  });

  test("that is cut off after its boot again and again counts on", () => {
    const once = happen(EMPTY_RECORD, ...STAGED_FOR_BOOT, REBOOTED, CUT_OFF, ...BACK);
    expect(once.state).toMatchObject({ name: "Failed", attempts: 1 });
    const twice = happen(once, ...STAGED_FOR_BOOT, REBOOTED, CUT_OFF, ...BACK);
    expect(twice.state).toMatchObject({ name: "Failed", attempts: 2 });
  });

  test("that waits for a reboot waits no longer once another system is active", () => {
    const release = sampleRelease({
      ...{ sequence: 8, digest: sampleDigest("8"), toplevel: samplePath("by-hand") },
    });
    const record = happen(EMPTY_RECORD, ...STAGED_FOR_BOOT, {
      ...{ type: "AlreadyActive", at: AT, release, previous: null },
    });
    expect(record.pendingReboot).toBeNull();
  });

  test("whose system was adopted by a later release is taken back with it", () => {
    const release = sampleRelease({ sequence: 8, digest: sampleDigest("8") });
    const record = happen(
      EMPTY_RECORD,
      ...STAGED_FOR_BOOT,
      { type: "AlreadyActive", at: AT, release, previous: BASELINE.profile },
      REBOOTED,
      { type: "ActivationRejected", at: AT, reason: REASON },
    );
    expect(denialOf(record, release)).toBeDefined();
    expect(record.committed).toBeNull();
  });

  test("that is cut off goes back, is not denied, and is tried again later", () => {
    const cut = happen(EMPTY_RECORD, ...BEGUN, CUT_OFF);
    expect(cut.state).toMatchObject({ name: "RollingBack", deny: false, rollbackAttempts: 0 });
    const failed = happen(cut, ...BACK);
    expect(failed.denied).toEqual([]);
    expect(failed.state).toEqual({
      ...{ name: "Failed", release: sampleRelease(), attempts: 1, undone: 1, retryAt: AT },
      reason: { code: "HEALTH_MIRROR", message: "no mirror" },
    });
    expect(happen(failed, ...BEGUN, CUT_OFF, ...BACK).state).toMatchObject({
      ...{ attempts: 2, undone: 2 },
    });
  });

  test("that is denied and then committed, since a person insisted, is denied no longer", () => {
    const denied = happen(
      EMPTY_RECORD,
      ...BEGUN,
      { type: "ActivationRejected", at: AT, reason: REASON },
      ...BACK,
    );
    expect(denied.denied).toHaveLength(1);
    const committed = happen(
      denied,
      ...BEGUN,
      { type: "ActivationSucceeded", at: AT },
      { type: "HealthConfirmed", at: AT },
    );
    expect(committed.denied).toEqual([]);
  });

  test("whose way back is barred keeps it while another release is tried", () => {
    const barred = happen(
      EMPTY_RECORD,
      ...BEGUN,
      { type: "ActivationRejected", at: AT, reason: { code: "ACTIVATION_FAILED", message: "2" } },
      { type: "RollbackFailed", at: AT, message: "no" },
    );
    const other = sampleRelease({ sequence: 9, digest: "9".repeat(64) });
    const tried = happen(barred, { type: "ReleaseAccepted", at: AT, release: other });
    expect(tried.state.name).toBe("Candidate");
    expect(tried.unfinishedWayBack).toEqual(barred.state);
    expect(recordSchema.parse(tried)).toEqual(tried);

    const withdrawn = happen(tried, { type: "ReleaseWithdrawn", at: AT, message: "gone" });
    expect(withdrawn.state).toEqual({ ...barred.state, rollbackAttempts: 0 });
    expect(withdrawn.unfinishedWayBack).toBeUndefined();
    const back = happen(withdrawn, { type: "RollbackSucceeded", at: AT });
    expect(back.unfinishedWayBack).toBeUndefined();
  });

  test("that commits owes the host no way back any more", () => {
    const proven = happen(EMPTY_RECORD, ...BEGUN, { type: "ActivationSucceeded", at: AT });
    const state = { ...proven.state, reason: { code: "HEALTH_FAILED", message: "" } };
    const unfinishedWayBack = { ...state, name: "RollingBack", deny: true, rollbackAttempts: 3 };
    const { afterBoot: _, ...owed } = unfinishedWayBack as Record<string, unknown>;
    const record = recordSchema.parse({ ...proven, unfinishedWayBack: owed });
    const committed = happen(record, { type: "HealthConfirmed", at: AT });
    expect(committed.unfinishedWayBack).toBeUndefined();
  });

  test("that was tried often enough says so once it is left", () => {
    const left = happen(EMPTY_RECORD, ...BEGUN, CUT_OFF, { type: "RollbackSucceeded", at: AT });
    const tired: Event = { type: "LeftoversRemoved", at: AT, retryAt: AT, gaveUp: true };
    expect(happen(left, tired).state).toMatchObject({ name: "Failed", gaveUp: true });
    expect(happen(left, CLEARED).state).not.toHaveProperty("gaveUp");
  });

  test("leaves behind what failed in its activation script, by system", () => {
    const { toplevel } = sampleRelease();
    const activated = { toplevel, snippets: ["users (1)"] };
    const proven = happen(EMPTY_RECORD, ...BEGUN, {
      ...{ type: "ActivationSucceeded", at: AT, activated, failedJobs: ["web.service"] },
    });
    expect(proven.state).toMatchObject({ name: "Verifying", failedJobs: ["web.service"] });
    expect(snippetsOf(proven, toplevel)).toEqual(["users (1)"]);
    expect(snippetsOf(proven, null)).toEqual([]);
    const old = { toplevel: BASELINE.profile, snippets: ["secrets (1)"] };
    const back = happen(proven, CUT_OFF, { type: "RollbackSucceeded", at: AT, activated: old });
    expect(snippetsOf(back, old.toplevel)).toEqual(["secrets (1)"]);
    const mended = withSnippets(back, { ...old, snippets: [] });
    expect(mended.failingSnippets).toEqual([activated]);
    expect(withSnippets(mended, { toplevel, snippets: [] })).not.toHaveProperty("failingSnippets");
  });

  test("whose activation fails goes back, counts tries to go back, and is denied", () => {
    const rejected = happen(EMPTY_RECORD, ...BEGUN, {
      ...{ type: "ActivationRejected", at: AT, reason: REASON },
    });
    expect(rejected.state).toMatchObject({ name: "RollingBack", rollbackAttempts: 0 });
    const tried = happen(
      rejected,
      { type: "RollbackFailed", at: AT, message: "no" },
      { type: "RollbackFailed", at: AT, message: "no" },
    );
    expect(tried.state).toMatchObject({ name: "RollingBack", rollbackAttempts: 2, reason: REASON });
    const back = happen(tried, { type: "RollbackSucceeded", at: AT });
    expect(back.state).toMatchObject({ name: "RolledBack", reason: REASON, baseline: BASELINE });
    const done = happen(back, CLEARED);
    expect(done.state).toEqual({ name: "Idle" });
    expect(done.committed).toBeNull();
    expect(denialOf(done, sampleRelease())?.reason).toEqual(REASON);
    expect(denialOf(done, { toplevel: BASELINE.profile })).toBeUndefined();
  });

  test("that is found unhealthy goes back as well", () => {
    const record = happen(
      EMPTY_RECORD,
      ...BEGUN,
      { type: "ActivationSucceeded", at: AT },
      { type: "ActivationRejected", at: AT, reason: { code: "HEALTH_FAILED", message: "sick" } },
    );
    expect(record.state.name).toBe("RollingBack");
    expect(record.committed).toBeNull();
  });

  test("that fails before the line counts on for this release, and from zero for another", () => {
    const failed = happen(EMPTY_RECORD, ...BEGUN.slice(0, 2), {
      ...{ type: "AttemptFailed", at: AT, reason: REASON, retryAt: AT },
    });
    expect(failed.state).toMatchObject({ name: "Failed", attempts: 1, retryAt: AT });
    const again = happen(failed, { type: "ReleaseAccepted", at: AT, release: sampleRelease() });
    expect(again.state).toMatchObject({ name: "Candidate", attempts: 1 });
    const release = sampleRelease({ sequence: 8, digest: sampleDigest("8") });
    const other = happen(failed, { type: "ReleaseAccepted", at: AT, release });
    expect(other.state).toMatchObject({ name: "Candidate", attempts: 0 });
  });
});

describe("denials", () => {
  test("speak against the modes that activate alike, and by hand against all", () => {
    const { toplevel, sequence, digest } = sampleRelease();
    const denial = {
      toplevel,
      sequence,
      digest,
      reason: { code: "ACTIVATION_FAILED", message: "" },
      at: AT,
    } as const;
    const with_ = (mode?: ActivationMode): AgentRecord => ({
      ...EMPTY_RECORD,
      denied: withDenial([], { ...denial, ...(mode && { mode }) }),
    });
    const denies = (record: AgentRecord): ActivationMode[] =>
      ACTIVATION_MODES.filter((mode) => denialOf(record, { toplevel }, mode));
    expect(denies(with_("switch"))).toEqual(["switch", "test"]);
    expect(denies(with_("test"))).toEqual(["switch", "test"]);
    expect(denies(with_("boot"))).toEqual(["boot"]);
    expect(denies(with_())).toEqual([...ACTIVATION_MODES]);
    expect(denialOf(with_("boot"), { toplevel })).toBeDefined();
    const both = withDenial(with_("boot").denied, { ...denial, mode: "switch" });
    expect(both.map(({ mode }) => mode)).toEqual(["boot", "switch"]);
    expect(withDenial(both, { ...denial, mode: "test" }).map(({ mode }) => mode)).toEqual([
      "boot",
      "test",
    ]);
    expect(withDenial(both, denial)).toHaveLength(1);
  });

  const deny = (record: AgentRecord, toplevel: string): AgentRecord =>
    happen(
      record,
      ...BEGUN.map((event) =>
        event.type === "ReleaseAccepted"
          ? { ...event, release: { ...event.release, toplevel } }
          : event,
      ),
      { type: "ActivationRejected", at: AT, reason: REASON },
      ...BACK,
    );

  test("are kept for the last 100 systems", () => {
    let record = EMPTY_RECORD;
    for (let at = 0; at < 103; at++) record = deny(record, samplePath(`system-${at}`));
    expect(record.denied).toHaveLength(100);
    expect(denialOf(record, { toplevel: samplePath("system-2") })).toBeUndefined();
    expect(denialOf(record, { toplevel: samplePath("system-3") })).toBeDefined();
    expect(denialOf(record, { toplevel: samplePath("system-102") })).toBeDefined();
  });

  test("by hand take back what was committed, and do nothing where nothing was", () => {
    const release = sampleRelease();
    const active = happen(EMPTY_RECORD, {
      ...{ type: "AlreadyActive", at: AT, release, previous: null },
    });
    const target = { toplevel: samplePath("earlier"), generation: 2 };
    const byHand = (from: string): Event => ({
      ...{ type: "RevertBegun", at: AT, from, target, reason: REASON },
    });
    const denied = happen(active, byHand(release.toplevel));
    expect(denied.committed).toBeNull();
    expect(denialOf(denied, release)?.reason).toEqual(REASON);
    expect(happen(active, byHand(samplePath("by-hand")))).toMatchObject({
      ...{ committed: active.committed, denied: [] },
    });
    expect(happen(EMPTY_RECORD, byHand(release.toplevel)).denied).toEqual([]);
  });

  test("by hand are possible in every state in which `rollback` can find a host", () => {
    const possible = STATE_NAMES.filter((name) => isExpected(name, "RevertBegun"));
    expect(possible).toEqual(
      expect.arrayContaining(["Idle", "Candidate", "Fetching", "Imported", "Failed"]),
    );
  });
});

describe("the record's schema", () => {
  test("takes the empty record", () => {
    expect(recordSchema.parse(EMPTY_RECORD)).toEqual(EMPTY_RECORD);
  });

  test.each([
    ["an unknown field", { extra: 1 }],
    ["an unknown state", { state: { name: "Waiting" } }],
    ["a state with a field of another", { state: { name: "Idle", attempts: 1 } }],
    [
      "a state that lacks its baseline",
      { state: { name: "Staged", release: sampleRelease(), attempts: 0 } },
    ],
    ["no word on the reboot slot", { holdsRebootSlot: undefined }],
    ["a pending reboot without a way back", { pendingReboot: { release: sampleRelease() } }],
    ["negative attempts", { state: { name: "Candidate", release: sampleRelease(), attempts: -1 } }],
    ["no denials", { denied: null }],
  ])("refuses %s", (_, change) => {
    expect(recordSchema.safeParse({ ...EMPTY_RECORD, ...change }).success).toBe(false);
  });
});

test("transient are exactly the failures that another attempt may mend", () => {
  expect(isTransient("MIRROR_UNREACHABLE")).toBe(true);
  expect(isTransient("DISK_FULL")).toBe(true);
  expect(isTransient("NOT_A_SYSTEM")).toBe(false);
  expect(isTransient("INDEX_INVALID")).toBe(false);
});

import type { Release } from "../formats/manifest.ts";
import { changesRunningSystem, setsProfile } from "./activation.ts";
import type { EventOf, EventType } from "./events.ts";
import {
  backAt,
  isSameActivated,
  isSameSystem,
  speaksAgainst,
  unknownOfUpdate,
  withCommitted,
  withoutCommitted,
  withDenial,
  withSnippets,
  type AgentRecord,
  type Committed,
  type Denial,
  type PendingReboot,
} from "./record.ts";
import type { State, StateName, StateOf } from "./states.ts";

/** The record after an event that a state met. `state` is the record's state. */
export type Transition<Name extends StateName, Type extends EventType> = (
  state: StateOf<Name>,
  event: EventOf<Type>,
  record: AgentRecord,
) => AgentRecord;

/** By state and event, the transition. A state cannot meet an event that is not in its row. */
type Transitions = {
  readonly [Name in StateName]: { readonly [Type in EventType]?: Transition<Name, Type> };
};

/** What states with a release and a number of attempts have in common. */
type Attempted = Pick<StateOf<"Candidate">, "release" | "attempts" | "undone">;

/** What states with a way back have in common. */
type Prepared = Omit<StateOf<"Staged">, "name">;

type UpdateState = Extract<State, Attempted>;
type PreparedState = Extract<State, Prepared>;

/** While the host is untouched, another release or a person may change the plan at any time. */
const UNTOUCHED = {
  ReleaseAccepted: accept,
  ReleaseWithdrawn: withdraw,
  AlreadyActive: adopt,
  RevertBegun: beginRevert,
  RebootNoticed: noticeReboot,
  BootCalledOff: callOff,
  // Reboots are counted on, so that this ends.
  WayBackMissed: (
    _state: State,
    { bootId }: EventOf<"WayBackMissed">,
    record: AgentRecord,
  ): AgentRecord =>
    record.pendingReboot
      ? { ...record, pendingReboot: { ...record.pendingReboot, bootId } }
      : record,
  // Of the way back that is still owed, which is tried beside whatever is under way.
  AgentRestarted: (_state: State, _event: unknown, record: AgentRecord): AgentRecord => {
    const { unfinishedWayBack: owed } = record;
    return owed ? { ...record, unfinishedWayBack: withRestart(owed) } : record;
  },
  RollbackSucceeded: (
    _state: State,
    event: EventOf<"RollbackSucceeded">,
    record: AgentRecord,
  ): AgentRecord =>
    record.unfinishedWayBack ? endOwed(record.unfinishedWayBack, event, record) : record,
  RollbackFailed: (_state: State, _event: unknown, record: AgentRecord): AgentRecord => {
    const { unfinishedWayBack: owed } = record;
    return owed ? { ...record, unfinishedWayBack: withFailedRollback(owed) } : record;
  },
  RevertSucceeded: (
    _state: State,
    event: EventOf<"RevertSucceeded">,
    record: AgentRecord,
  ): AgentRecord =>
    record.unfinishedRevert ? endRevert(record.unfinishedRevert, event, record) : record,
  RevertFailed: (_state: State, _event: unknown, record: AgentRecord): AgentRecord => record,
  ChangedByHand: (_state: State, _event: unknown, record: AgentRecord): AgentRecord =>
    withoutWayBack(record),
  RebootPrepared: (_state: State, _event: unknown, record: AgentRecord): AgentRecord => ({
    ...record,
    preparedReboot: true,
  }),
  RebootEnded: (
    _state: State,
    _event: unknown,
    { preparedReboot: _, ...record }: AgentRecord,
  ): AgentRecord => record,
  RebootSlotTaken: (_state: State, _event: unknown, record: AgentRecord): AgentRecord => ({
    ...record,
    holdsRebootSlot: true,
  }),
  RebootSlotReleased: (_state: State, _event: unknown, record: AgentRecord): AgentRecord => ({
    ...record,
    holdsRebootSlot: false,
  }),
} as const;

/** The whole machine. `advance` throws for what is not here: it would be a defect. */
export const TRANSITIONS: Transitions = {
  Idle: { ...UNTOUCHED, RebootRequested: countRequest, RebootRefused: discountRequest },
  Candidate: {
    ...UNTOUCHED,
    FetchBegun: (state, _, record) => to(record, { name: "Fetching", ...attempted(state) }),
    AttemptFailed: fail,
  },
  Fetching: {
    ...UNTOUCHED,
    ClosureImported: (state, _, record) => to(record, { name: "Imported", ...attempted(state) }),
    AttemptFailed: fail,
  },
  Imported: {
    ...UNTOUCHED,
    BaselineRecorded: (state, { baseline, bootId, failing }, record) =>
      to(withSnippets(record, failing), {
        ...{ name: "Staged", ...attempted(state), baseline, bootId, restarts: 0 },
      }),
    AttemptFailed: fail,
  },
  Staged: {
    ActivationBegun: (state, _, record) => to(record, { name: "Activating", ...prepared(state) }),
    CommitBegun: beginCommit,
    AttemptFailed: fail,
    ActivationRejected: reject,
    ActivationInterrupted: interrupt,
    ChangedByHand: leave,
    AgentRestarted: countRestart,
  },
  Activating: {
    ActivationSucceeded: (state, { activated, failedJobs }, record) =>
      to(withSnippets(record, activated), {
        ...{ name: "Verifying", ...prepared(state), afterBoot: false },
        ...(failedJobs && { failedJobs: [...failedJobs] }),
      }),
    CommitBegun: beginCommit,
    ActivationRejected: reject,
    ActivationInterrupted: interrupt,
    // Another switch held the lock, so nothing was done.
    AttemptFailed: fail,
    ChangedByHand: leave,
    AgentRestarted: countRestart,
  },
  Verifying: {
    HealthConfirmed: (state, { at }, record) => commit(record, state, at),
    ChangedByHand: leave,
    CommitBegun: beginCommit,
    ActivationRejected: reject,
    ActivationInterrupted: interrupt,
    AgentRestarted: countRestart,
  },
  Committing: {
    BootDefaultSet: (state, { at, bootId, rebootNeeded = state.rebootNeeded }, record) => ({
      ...commit(record, state, at),
      pendingReboot: rebootNeeded ? pendingRebootOf(state, { bootId, wayBack: false }) : null,
    }),
    // Nothing is committed that was not proven.
    TrialArmed: (state, { bootId }, record) => ({
      ...to(withoutWayBack(record), { name: "Armed", ...prepared(state) }),
      pendingReboot: { ...pendingRebootOf(state, { bootId, wayBack: false }), trial: true },
    }),
    ActivationRejected: reject,
    ActivationInterrupted: interrupt,
    // The switch that was to make it the boot default did not begin, and nothing runs of it.
    AttemptFailed: fail,
    ChangedByHand: leave,
    AgentRestarted: countRestart,
  },
  Armed: { LeftoversRemoved: rest, AgentRestarted: countRestart },
  Committed: { LeftoversRemoved: rest, AgentRestarted: countRestart },
  RollingBack: {
    RollbackSucceeded: endRollback,
    RollbackFailed: (state, _, record) => to(record, withFailedRollback(state)),
    ChangedByHand: leave,
    AgentRestarted: countRestart,
    // If the way back is barred, the way on to another release may not be, and so may the way to
    // another generation that a person names.
    ReleaseAccepted: (state, event, record) =>
      accept(state, event, { ...record, unfinishedWayBack: state }),
    RevertBegun: beginRevert,
  },
  RolledBack: {
    LeftoversRemoved: (state, { retryAt, gaveUp }, record) =>
      to(
        record,
        state.deny || state.reason.code === "BOOT_CALLED_OFF"
          ? { name: "Idle" }
          : {
              ...failed(state, state.reason, retryAt),
              undone: (state.undone ?? 0) + 1,
              ...(gaveUp && { gaveUp }),
            },
      ),
    AgentRestarted: countRestart,
  },
  Reverting: {
    RevertSucceeded: endRevert,
    RevertFailed: (state, _, record) => to(record, { ...state, failures: state.failures + 1 }),
    RevertBegun: beginRevert,
    // Somebody chose a third system meanwhile.
    ChangedByHand: (_, __, record) => to(withoutWayBack(record), { name: "Idle" }),
    // As for RollingBack.
    ReleaseAccepted: (state, event, record) =>
      accept(state, event, { ...record, unfinishedRevert: state }),
  },
  Failed: { ...UNTOUCHED, RebootRequested: countRequest, RebootRefused: discountRequest },
};

/** The record in another state. */
function to(record: AgentRecord, state: State): AgentRecord {
  return { ...record, state };
}

/** What another version recorded of the update goes with it. */
function attempted(update: UpdateState | PendingReboot): Attempted {
  const { release, attempts, undone } = update;
  return {
    ...{ release, attempts, ...(undone !== undefined && { undone }) },
    ...unknownOfUpdate(update),
  };
}

function prepared(state: PreparedState): Prepared {
  const { baseline, bootId, restarts } = state;
  return { ...attempted(state), baseline, bootId, restarts };
}

function failed(
  state: UpdateState,
  reason: StateOf<"Failed">["reason"],
  retryAt: string,
): StateOf<"Failed"> {
  return { name: "Failed", ...attempted(state), attempts: state.attempts + 1, reason, retryAt };
}

/** The host is a whole system again: nothing is owed any more. */
function withoutWayBack({
  unfinishedWayBack: _,
  unfinishedRevert: __,
  ...record
}: AgentRecord): AgentRecord {
  return record;
}

/**
 * What is still owed once a release in this mode is proven: the boot default, unless the release
 * became that; and all of it after a mode that changes nothing.
 */
function owedAfter(mode: Release["mode"], record: AgentRecord): AgentRecord {
  if (setsProfile(mode)) return withoutWayBack(record);
  return changesRunningSystem(mode) ? bootDefaultOwed(record) : record;
}

/**
 * What is still owed once the host is found to be a release. What runs and the profile are there;
 * which system the boot loader starts cannot be seen.
 */
function withBootDefaultOwed(record: AgentRecord, { toplevel }: Release): AgentRecord {
  const { unfinishedWayBack: owed, unfinishedRevert } = record;
  if (unfinishedRevert?.target.toplevel === toplevel) return record;
  return owed?.baseline.profile === toplevel ? bootDefaultOwed(record) : withoutWayBack(record);
}

/** The way back that is owed, as one that sets the boot default and leaves alone what runs. */
function bootDefaultOwed(record: AgentRecord): AgentRecord {
  const { unfinishedWayBack: owed } = record;
  if (!owed || !setsProfile(owed.release.mode)) return withoutWayBack(record);
  const { release, reason } = owed;
  return {
    ...withoutWayBack(record),
    unfinishedWayBack: {
      ...{ ...owed, release: { ...release, mode: "boot" } },
      reason: { code: "BOOT_CALLED_OFF", message: reason.message },
    },
  };
}

/** The way back is at its end, but for a boot that it may take. */
function endRollback(
  state: StateOf<"RollingBack">,
  { rebootFrom: bootId, activated }: EventOf<"RollbackSucceeded">,
  record: AgentRecord,
): AgentRecord {
  const back = withBootDefaultBack(withoutWayBack(withSnippets(record, activated)), state);
  return {
    ...backAt(back, state.baseline.profile),
    state: { name: "RolledBack", ...prepared(state), reason: state.reason, deny: state.deny },
    pendingReboot:
      bootId === undefined ? back.pendingReboot : pendingRebootOf(state, { bootId, wayBack: true }),
  };
}

/** The host is where a person wanted it. */
function endRevert(
  { target }: StateOf<"Reverting">,
  { activated, needsReboot = false }: EventOf<"RevertSucceeded">,
  record: AgentRecord,
): AgentRecord {
  const back = backAt(withoutWayBack(withSnippets(record, activated)), target.toplevel);
  return { ...to(back, { name: "Idle" }), pendingReboot: needsReboot ? back.pendingReboot : null };
}

/** A boot default that was owed alone changes nothing of what is under way. */
function endOwed(
  owed: StateOf<"RollingBack">,
  event: EventOf<"RollbackSucceeded">,
  record: AgentRecord,
): AgentRecord {
  const back = endRollback(owed, event, record);
  const isBeside = owed.reason.code === "BOOT_CALLED_OFF" && event.rebootFrom === undefined;
  return isBeside ? { ...back, state: record.state } : back;
}

function withFailedRollback(state: StateOf<"RollingBack">): StateOf<"RollingBack"> {
  return { ...state, rollbackAttempts: state.rollbackAttempts + 1 };
}

/** A host that is still owed its way back goes on with it, whoever asked for it. */
function withdraw(_state: State, _event: unknown, record: AgentRecord): AgentRecord {
  const { unfinishedWayBack, unfinishedRevert } = record;
  if (unfinishedWayBack) {
    return to(withoutWayBack(record), { ...unfinishedWayBack, rollbackAttempts: 0 });
  }
  return unfinishedRevert
    ? to(withoutWayBack(record), { ...unfinishedRevert, failures: 0 })
    : to(record, { name: "Idle" });
}

/** To `Idle`, with everything else as it was. */
function rest(_state: State, _event: unknown, record: AgentRecord): AgentRecord {
  return to(record, { name: "Idle" });
}

/**
 * Attempts are counted on for the same release, and from zero for another one. What was undone
 * is counted on for the same system: the release that brings it again changed nothing in it.
 */
function accept(
  state: State,
  { release }: EventOf<"ReleaseAccepted">,
  record: AgentRecord,
): AgentRecord {
  const before = "attempts" in state ? state : null;
  const isSame = before?.release.digest === release.digest;
  const others = isSame ? unknownOfUpdate(before) : {};
  const undone = before && isSameSystem(before.release, release) ? timesUndone(before) : undefined;
  const attempts = isSame ? before.attempts : 0;
  return to(record, {
    ...{ name: "Candidate", release, attempts, ...(undone !== undefined && { undone }) },
    ...others,
  });
}

/** A system whose way back is barred was tried once more than those that were undone. */
function timesUndone(state: Extract<State, { readonly attempts: number }>): number | undefined {
  return state.name === "RollingBack" ? (state.undone ?? 0) + 1 : state.undone;
}

function adopt(
  _state: State,
  { release, at, previous }: EventOf<"AlreadyActive">,
  record: AgentRecord,
): AgentRecord {
  const pendingReboot = stillPending(record.pendingReboot, release);
  const rested = { ...to(withBootDefaultOwed(record, release), { name: "Idle" }), pendingReboot };
  // What waits for its trial is not proven.
  return pendingReboot?.trial ? rested : withCommitted(rested, committedOf(release, at, previous));
}

/**
 * What a person leaves is denied, so that the next poll does not bring it back. A boot that leads
 * back from a failed system to the very system that they chose is still owed.
 */
function beginRevert(
  state: State,
  { from, left = from, target, reason, at }: EventOf<"RevertBegun">,
  record: AgentRecord,
): AgentRecord {
  const { committed, pendingReboot } = record;
  const { trial = false, wayBack = false } = pendingReboot ?? {};
  const known = [
    state.name === "RollingBack" ? state.release : null,
    trial || wayBack ? pendingReboot?.release : null,
    committed,
  ];
  const release = known.find((it) => it?.toplevel === left);
  const isLeft = committed !== null && [from, left].includes(committed.toplevel);
  const isOwed = wayBack && pendingReboot?.baseline.profile === target.toplevel;
  return {
    ...to(isLeft ? withoutCommitted(record) : record, {
      ...{ name: "Reverting", from, target, failures: 0 },
    }),
    pendingReboot: isOwed ? pendingReboot : null,
    denied: release ? withDenial(record.denied, denialOfAll(release, reason, at)) : record.denied,
  };
}

/** A person does not want the system back, however it is activated. */
function denialOfAll(
  { toplevel, sequence, digest }: Pick<Committed, "toplevel" | "sequence" | "digest">,
  reason: Denial["reason"],
  at: string,
): Denial {
  return { toplevel, sequence, digest, reason, at };
}

/** A system that came up with the reboot is examined; a way back is complete with it. */
function noticeReboot(
  _state: State,
  { bootId }: EventOf<"RebootNoticed">,
  record: AgentRecord,
): AgentRecord {
  const pending = record.pendingReboot;
  if (pending === null) return record;
  if (pending.wayBack) return { ...record, pendingReboot: null };
  const { trial } = pending;
  // The boot ended whatever ran before it: the way back is to what every other boot starts.
  const { profile, running } = pending.baseline;
  const baseline = { ...pending.baseline, running: profile ?? running };
  const examined: Prepared = { ...attempted(pending), baseline, bootId, restarts: 0 };
  return {
    ...to(record, { name: "Verifying", ...examined, afterBoot: true, ...(trial && { trial }) }),
    pendingReboot: null,
  };
}

/**
 * The way back from a release whose boot did not come. If it runs, proven by a live switch, it is
 * what the mode `test` makes of a host; otherwise the host is the release before it.
 */
function callOff(
  _state: State,
  { reason, runs, at }: EventOf<"BootCalledOff">,
  record: AgentRecord,
): AgentRecord {
  const pending = record.pendingReboot;
  if (pending === null || pending.wayBack) return record;
  const { release, baseline, bootId, trial } = pending;
  const { profile } = baseline;
  const left: StateOf<"Verifying"> = {
    ...{ name: "Verifying", ...attempted(pending), baseline, bootId, restarts: 0 },
    ...{ afterBoot: false, ...(trial && { trial }) },
  };
  const back = { ...record, pendingReboot: null, state: rollingBack(left, reason, false) };
  if (runs) return withCommitted(back, { ...committedOf(release, at, profile), mode: "test" });
  const isCommitted = record.committed?.toplevel === release.toplevel;
  return isCommitted ? backAt(withoutCommitted(back), profile) : back;
}

function countRequest(_state: State, _event: unknown, record: AgentRecord): AgentRecord {
  return withRequests(record, 1);
}

function discountRequest(_state: State, _event: unknown, record: AgentRecord): AgentRecord {
  return withRequests(record, -1);
}

function withRequests(record: AgentRecord, more: 1 | -1): AgentRecord {
  const pending = record.pendingReboot;
  if (pending === null) return record;
  const requested = Math.max(0, pending.requested + more);
  return { ...record, pendingReboot: { ...pending, requested } };
}

function countRestart(
  state: Extract<State, { restarts: number }>,
  _event: unknown,
  record: AgentRecord,
): AgentRecord {
  return to(record, withRestart(state));
}

function withRestart<Kind extends { restarts: number }>(state: Kind): Kind {
  return { ...state, restarts: state.restarts + 1 };
}

/** An attempt that brought something counts as the first one: only those in vain add up. */
function fail(
  state: UpdateState,
  { reason, retryAt, advanced }: EventOf<"AttemptFailed">,
  record: AgentRecord,
): AgentRecord {
  return to(record, failed(advanced ? { ...state, attempts: 0 } : state, reason, retryAt));
}

/**
 * Somebody switched by hand: what they made is left alone. A way back that is owed restores what
 * they did not change.
 */
function leave(
  state: PreparedState,
  { reason, retryAt, gaveUp }: EventOf<"ChangedByHand">,
  record: AgentRecord,
): AgentRecord {
  const left = state.name === "RollingBack" ? withoutWayBack(record) : record;
  return to(left, {
    ...failed(state, reason, retryAt),
    ...(gaveUp && { gaveUp }),
  });
}

function beginCommit(
  state: PreparedState,
  { rebootNeeded, message: why }: EventOf<"CommitBegun">,
  record: AgentRecord,
): AgentRecord {
  return to(record, {
    ...{ name: "Committing", ...prepared(state), rebootNeeded },
    ...(why !== undefined && { why }),
    ...(isTrial(state) && { tried: true }),
  });
}

/** The system is to blame: it is undone and denied. */
function reject(
  state: PreparedState & { readonly afterBoot?: boolean },
  { reason, at }: EventOf<"ActivationRejected">,
  record: AgentRecord,
): AgentRecord {
  const { toplevel, sequence, digest, mode, specialisation = null } = state.release;
  const denied = withDenial(record.denied, {
    ...{ toplevel, sequence, digest, reason, at, mode },
    // A boot starts the system itself, whatever specialisation is activated after it.
    ...(isLive(state) && { specialisation }),
  });
  return { ...undo(state, record), denied, state: rollingBack(state, reason, true) };
}

/** Whether a state is about what was switched to, rather than about what is booted. */
function isLive({ name, afterBoot = false }: { name: StateName; afterBoot?: boolean }): boolean {
  return name === "Activating" || (name === "Verifying" && !afterBoot);
}

/** The system is not to blame, as far as is known: it is undone and tried again. */
function interrupt(
  state: PreparedState,
  { reason }: EventOf<"ActivationInterrupted">,
  record: AgentRecord,
): AgentRecord {
  // The profile's own system, which is activated again after a boot or for drift, stays proven.
  const isBaseline = state.baseline.profile === state.release.toplevel;
  const undone = isBaseline ? record : undo(state, record);
  return { ...undone, state: rollingBack(state, reason, false) };
}

function rollingBack(
  state: PreparedState,
  reason: StateOf<"RollingBack">["reason"],
  deny: boolean,
): StateOf<"RollingBack"> {
  return {
    // Restarts are counted anew: those before speak of the activation.
    ...{ name: "RollingBack", ...prepared(state), reason, deny, restarts: 0, rollbackAttempts: 0 },
    ...(isTrial(state) && { trial: true }),
  };
}

/**
 * The record once a way back has set the boot default. It called off a boot into any other
 * release, which nothing has proven; a boot that leads back is still owed.
 */
function withBootDefaultBack(
  record: AgentRecord,
  { release, baseline }: Pick<Prepared, "release" | "baseline">,
): AgentRecord {
  const { committed, pendingReboot } = record;
  if (!setsProfile(release.mode) || pendingReboot === null || pendingReboot.wayBack) return record;
  if (pendingReboot.release.toplevel === baseline.profile) return record;
  const isGone = committed !== null && isSameActivated(committed, pendingReboot.release);
  return { ...record, committed: isGone ? null : committed, pendingReboot: null };
}

/** Whether a boot of the system was a trial, and the recorded system is the boot default. */
function isTrial(state: Prepared & { trial?: boolean | undefined }): boolean {
  return state.trial === true;
}

/** A release that was committed and did not survive its boot is no longer committed. */
function undo({ release }: Prepared, record: AgentRecord): AgentRecord {
  const { committed } = record;
  const wasCommitted = committed !== null && isSameActivated(committed, release);
  return { ...record, committed: wasCommitted ? null : committed };
}

function commit(record: AgentRecord, state: PreparedState, at: string): AgentRecord {
  const { release, baseline } = state;
  return {
    ...withCommitted(
      to(owedAfter(release.mode, record), { name: "Committed", ...prepared(state) }),
      committedOf(release, at, baseline.profile),
    ),
    pendingReboot: isEnded(record.pendingReboot, release.mode) ? null : record.pendingReboot,
    // It failed here before and did not fail now: a person insisted, so it is denied no longer.
    denied: record.denied.filter((denial) => !speaksAgainst(denial, release)),
  };
}

/**
 * Whether a pending boot is of no use once a release is proven. A mode that leaves the boot default
 * alone leaves a boot that waits for it, too. A boot that was to leave a failed system ends with
 * whatever runs and is proven.
 */
function isEnded(pending: PendingReboot | null, mode: Release["mode"]): boolean {
  return setsProfile(mode) || (pending?.wayBack === true && changesRunningSystem(mode));
}

function committedOf(release: Release, at: string, previous: string | null): Committed {
  const { channel, epoch, sequence, digest, toplevel, mode, specialisation } = release;
  const { closureSize, archive } = release;
  // Patches lead to this index, which is read whole when it is needed again.
  const { patches: _, ...index } = archive.index;
  return {
    channel,
    ...(epoch !== undefined && { epoch }),
    ...{ sequence, digest, toplevel, mode, at, previous },
    ...{ closureSize, archive: { ...archive, index } },
    ...(specialisation !== undefined && { specialisation }),
  };
}

function pendingRebootOf(
  state: PreparedState & { why?: string | undefined },
  reboot: Pick<PendingReboot, "bootId" | "wayBack">,
): PendingReboot {
  const { baseline, why } = state;
  return {
    ...{ ...attempted(state), baseline, requested: 0, ...reboot },
    ...(why !== undefined && { why }),
  };
}

/**
 * The pending reboot once a release is found active. The same system, released again, still
 * waits for its reboot, under its new name; another system does not.
 */
function stillPending(pending: PendingReboot | null, active: Release): PendingReboot | null {
  if (pending?.release.toplevel !== active.toplevel) return null;
  // The mode in which it became the boot default says how to go back, whatever mode it has now.
  return { ...pending, release: { ...active, mode: pending.release.mode } };
}

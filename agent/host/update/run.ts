import { PullError, toPullError } from "../../core/errors.ts";
import { setsProfile } from "../../core/update/activation.ts";
import { isOwnFault } from "../../core/update/blame.ts";
import {
  isPastTheLine,
  type KnownReason,
  type StateName,
  type StateOf,
} from "../../core/update/states.ts";
import { changedByHand, type HandMadeTools } from "./hand-made.ts";
import { interrupted, rejected, type Happening } from "./happening.ts";
import type { Journal } from "./journal.ts";
import { forgetUnproven, removePreparations } from "./leftovers.ts";
import { attemptFailed, type RetryTools } from "./retry.ts";
import type { StepContext, StepResult } from "./step.ts";
import { runStep, type StepTools, type WorkingState } from "./steps/steps.ts";

/** One pass over the host: its journal, what it acts through, and what ends it. */
export interface Pass<Tools> {
  readonly journal: Journal;
  readonly tools: Tools;
  readonly signal: AbortSignal | undefined;
}

/**
 * Runs the steps of one state after the other until there is nothing more to do now, or
 * `until` is reached. Every event is recorded before the next step begins. Gives the error
 * that ended it, or null. Throws what cannot be made into an event: an error of the state
 * file, or one in a state whose step is simply run again.
 */
export async function runSteps(
  { journal, tools, signal }: Pass<StepTools>,
  until?: StateName,
): Promise<PullError | null> {
  let failure: PullError | null = null;
  for (;;) {
    const { state } = journal.record;
    if (state.name === "Idle" || state.name === "Failed" || state.name === until) return failure;
    if (signal?.aborted) return new PullError("INTERRUPTED", `stopped in ${state.name}`);
    const { thrown, event, details } = await stepOf(
      state,
      { record: journal.record, signal },
      tools,
    );
    if (event === null) {
      if (thrown.code === "INTERRUPTED") return thrown;
      throw thrown;
    }
    failure = failureAfter(event, thrown, failure);
    if (event.type === "ActivationRejected" || event.type === "ActivationInterrupted") {
      tools.log.error(`${event.reason.message}; going back`, { code: event.reason.code });
    }
    if (event.type === "ChangedByHand") {
      tools.log.warn(event.reason.message, { code: event.reason.code });
    }
    await journal.happened(event, details);
    const isLeft = event.type === "AttemptFailed" || event.type === "ChangedByHand";
    if (isLeft && isPastTheLine(state)) {
      if ("baseline" in state && setsProfile(state.release.mode)) {
        await forgetUnproven(state, tools);
      }
      await removePreparations(journal.record, tools);
    }
    if (event.type === "RollbackFailed" || event.type === "RevertFailed") return failure;
  }
}

/**
 * Tries the way back once that is owed although another release took its place. Whatever is under
 * way for that release stays as it is, unless the way back succeeds. Gives why it did not; null if
 * it did, or if none is owed. Throws what cannot be made into an event.
 */
export async function runOwedWayBack(pass: Pass<StepTools>): Promise<PullError | null> {
  const { journal, tools, signal } = pass;
  const { unfinishedWayBack, unfinishedRevert } = journal.record;
  const owed = unfinishedWayBack ?? unfinishedRevert;
  if (!owed || isPastTheLine(journal.record.state)) return null;
  const { thrown, event, details } = await stepOf(owed, { record: journal.record, signal }, tools);
  if (event === null) {
    if (thrown.code === "INTERRUPTED") return thrown;
    throw thrown;
  }
  if (event.type === "ChangedByHand") {
    tools.log.warn(event.reason.message, { code: event.reason.code });
  }
  await journal.happened(event, details);
  if (event.type === "RollbackFailed" || event.type === "RevertFailed") {
    return failureAfter(event, thrown, null);
  }
  if (isPastTheLine(journal.record.state)) return runSteps(pass);
  await removePreparations(journal.record, tools);
  return null;
}

/** What a step led to, or what it threw if that says nothing about the state. */
type StepEnd =
  | (StepResult & { readonly thrown: PullError | null })
  | { readonly event: null; readonly thrown: PullError; readonly details?: undefined };

/**
 * Runs a state's step, unless a person changed the host by hand so that the agent must not go on.
 * A step that failed is looked at once more: it may have failed because of what a person did.
 */
async function stepOf(
  state: StateOf<WorkingState>,
  context: StepContext,
  tools: StepTools & HandMadeTools,
): Promise<StepEnd> {
  let result: StepResult;
  let thrown: PullError | null = null;
  try {
    const before = await changedByHand(state, context.record, tools);
    if (before !== null) return { event: before, thrown: null };
    result = await runStep(state, context, tools);
  } catch (error) {
    thrown = toPullError(error);
    const event = thrown.code === "INTERRUPTED" ? null : eventOf(state, thrown, tools);
    if (event === null) return { event, thrown };
    result = { event };
  }
  if (!isFailure(result.event)) return { ...result, thrown };
  const meanwhile = await changedByHand(state, context.record, tools);
  return { ...result, ...(meanwhile && { event: meanwhile }), thrown };
}

/** Whether an event undoes an activation, or ends one or a rollback. */
function isFailure({ type }: Happening): boolean {
  switch (type) {
    case "ActivationRejected":
    case "ActivationInterrupted":
    case "AttemptFailed":
    case "RevertFailed":
      return true;
    default:
      return false;
  }
}

/** What a run has failed by, once `event` came after `before`. */
function failureAfter(
  event: Happening,
  thrown: PullError | null,
  before: PullError | null,
): PullError | null {
  switch (event.type) {
    case "ActivationRejected":
    case "ActivationInterrupted":
      return new PullError(event.reason.code, event.reason.message);
    case "AttemptFailed":
    case "ChangedByHand":
      return thrown ?? new PullError(event.reason.code, event.reason.message);
    case "RollbackFailed":
    case "RevertFailed":
      return thrown ?? new PullError("ROLLBACK_FAILED", event.message);
    default:
      return before;
  }
}

/** What an error in a state means; null if the state stays and its step is run again later. */
function eventOf(
  state: StateOf<WorkingState>,
  { code, message }: PullError,
  tools: RetryTools,
): Happening | null {
  const reason: KnownReason = { code, message };
  switch (state.name) {
    case "Candidate":
    case "Fetching":
    case "Imported":
    case "Staged":
      return attemptFailed(state, reason, tools);
    case "Activating":
    case "Verifying":
    case "Committing":
      return isOwnFault(code) ? rejected(code, message) : interrupted(code, message);
    case "RollingBack":
      return { type: "RollbackFailed", message };
    case "Reverting":
      return { type: "RevertFailed", message };
    case "Armed":
    case "Committed":
    case "RolledBack":
      return null;
    default:
      return state satisfies never;
  }
}

import type { StateName, StateOf } from "../../../core/update/states.ts";
import type { Step, StepContext, StepResult } from "../step.ts";
import { activate, type ActivateTools } from "./activate.ts";
import { endArming, type EndArmingTools } from "./arm-trial.ts";
import { commit, endUpdate, type CommitTools, type EndTools } from "./commit.ts";
import { fetchStep, type FetchStepTools } from "./fetch.ts";
import { recordBaseline, stage, type BaselineTools, type StageTools } from "./prepare.ts";
import {
  endRollBack,
  revert,
  rollBack,
  type EndRollBackTools,
  type RevertTools,
  type RollBackTools,
} from "./restore.ts";
import { verify, type VerifyTools } from "./verify.ts";

/** What all steps together take. */
export type StepTools = FetchStepTools &
  BaselineTools &
  StageTools &
  ActivateTools &
  VerifyTools &
  CommitTools &
  EndArmingTools &
  EndTools &
  RollBackTools &
  EndRollBackTools &
  RevertTools;

/** States in which nothing is done until a poll finds something. */
type RestingState = "Idle" | "Failed";

/** States in which something has to be done. */
export type WorkingState = Exclude<StateName, RestingState>;

/** The step of each state: a state without one does not compile. */
const STEPS: { readonly [Name in WorkingState]: Step<Name, StepTools> } = {
  Candidate: async () => ({ event: { type: "FetchBegun" } }),
  Fetching: fetchStep,
  Imported: recordBaseline,
  Staged: stage,
  Activating: activate,
  Verifying: verify,
  Committing: commit,
  Armed: endArming,
  Committed: endUpdate,
  RollingBack: rollBack,
  RolledBack: endRollBack,
  Reverting: revert,
};

/** Does what a state asks for. Throws what its step throws. */
export function runStep(
  state: StateOf<WorkingState>,
  context: StepContext,
  tools: StepTools,
): Promise<StepResult> {
  // The map ties each step to its state; TypeScript cannot follow that through the look-up.
  const step = STEPS[state.name] as Step<WorkingState, StepTools>;
  return step(state, context, tools);
}

import type { AgentRecord } from "../../core/update/record.ts";
import type { StateName, StateOf } from "../../core/update/states.ts";
import type { Happening } from "./happening.ts";
import type { Details } from "./journal.ts";

/** What a step knows beside its state. */
export interface StepContext {
  readonly record: AgentRecord;
  /** Ends the step once that is safe; it throws INTERRUPTED then. */
  readonly signal: AbortSignal | undefined;
}

/** What a step leads to, and what the history says of it besides. */
export interface StepResult {
  readonly event: Happening;
  readonly details?: Details;
}

/**
 * What is done in a state. It can be run again at any time: the agent may have ended in the
 * middle of it. What it throws becomes the event that `run.ts` has for an error in its state.
 */
export type Step<Name extends StateName, Tools> = (
  state: StateOf<Name>,
  context: StepContext,
  tools: Tools,
) => Promise<StepResult>;

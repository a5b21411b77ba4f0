import type { AgentRecord } from "../../core/update/record.ts";
import { failureOf, type SwitchVerdict } from "../../core/update/switch-verdict.ts";
import type { StateOf } from "../../core/update/states.ts";
import { handMade, leftToHand, type HandMadeTools } from "./hand-made.ts";
import type { Happening } from "./happening.ts";
import type { StepContext } from "./step.ts";
import { runSwitch, type SwitchOrder, type SwitchTools } from "./switch-run.ts";

/** Whether somebody pointed the profile at another system while a release is committed. */
export async function isProfileMade(
  state: StateOf<"Committing">,
  record: AgentRecord,
  tools: HandMadeTools,
): Promise<boolean> {
  return (await handMade(state, record, tools)).profile !== null;
}

/**
 * The order that makes the proven system the boot default by its own program, without the checks
 * of a switch. It is moot once somebody chose another system.
 */
export function provenBoot(
  proven: string,
  state: StateOf<"Committing">,
  record: AgentRecord,
  tools: HandMadeTools,
): SwitchOrder {
  return {
    ...({ toplevel: proven, action: "boot", unchecked: true } as const),
    ...{ ranBefore: null, knownSnippets: [] },
    isMoot: () => isProfileMade(state, record, tools),
  };
}

/**
 * Leaves the boot default to a person who chose one while the agent's installer waited or ran;
 * null if nobody did. If the agent's came last, the person's is run again.
 */
export async function leaveBootDefault(
  state: StateOf<"Committing">,
  verdict: SwitchVerdict,
  { record, signal }: StepContext,
  tools: HandMadeTools & SwitchTools,
): Promise<Happening | null> {
  const made = await handMade(state, record, tools);
  if (made.profile === null) return null;
  if (verdict.kind !== "notBegun") {
    const order = { toplevel: made.profile, ranBefore: null, knownSnippets: [], unchecked: true };
    const run = await runSwitch({ ...order, action: "boot" }, signal, tools);
    const failure = failureOf(run.verdict);
    if (failure !== null) tools.log.error(`${made.profile} boot: ${failure}`);
  }
  return leftToHand(state, made, tools);
}

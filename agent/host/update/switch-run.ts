import type { ActivationMode } from "../../core/formats/manifest.ts";
import { judgeActivation, type Verdict } from "../../core/update/activation.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { Details } from "./journal.ts";

/** How long another switch-to-configuration is waited for: half a minute. */
const LOCK_WAIT_MS = 3_000;
const LOCK_TRIES = 10;

/** What running a switch takes. */
export type SwitchTools = Pick<AgentTools, "activator" | "timers" | "log">;

/** How a run of switch-to-configuration ended. */
export interface SwitchRun {
  readonly verdict: Verdict;
  readonly timedOut: boolean;
  readonly details: Details;
}

/**
 * Runs a system's switch-to-configuration and waits a while for another one that holds the
 * lock. Throws INTERRUPTED, TOOL_MISSING, …
 */
export async function runSwitch(
  toplevel: string,
  mode: ActivationMode | "check",
  signal: AbortSignal | undefined,
  { activator, timers, log }: SwitchTools,
): Promise<SwitchRun> {
  for (let tries = 1; ; tries++) {
    log.info(`switch-to-configuration ${mode}`);
    const result = await activator.activate(toplevel, mode, signal);
    const verdict = judgeActivation(result);
    if (verdict.kind !== "locked" || tries >= LOCK_TRIES) {
      const { timedOut, lastLines } = result;
      return { verdict, timedOut, details: { lastLines: [...lastLines] } };
    }
    log.warn("another switch-to-configuration runs; waiting for it");
    await timers.sleep(LOCK_WAIT_MS, signal);
  }
}

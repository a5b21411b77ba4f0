import type { SwitchAction } from "../../core/ports.ts";
import { snippetText } from "../../core/update/switch-output.ts";
import { judgeSwitch, type SwitchVerdict } from "../../core/update/switch-verdict.ts";
import type { FailingSnippets } from "../../core/update/record.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { Details } from "./journal.ts";

/** How long another switch-to-configuration is waited for: half a minute. */
const LOCK_WAIT_MS = 3_000;
const LOCK_TRIES = 10;

/** What running a switch takes. */
export type SwitchTools = Pick<AgentTools, "activator" | "timers" | "log" | "store">;

/** Which run is wanted, and what it is judged against. */
export interface SwitchOrder {
  readonly toplevel: string;
  readonly action: SwitchAction;
  /** The system that ran before, as it was recorded; null if that is not known. */
  readonly ranBefore: string | null;
  /** Snippets that fail in the system that ran before. */
  readonly knownSnippets: readonly string[];
  /** Leaves the pre-switch checks out. */
  readonly unchecked?: boolean;
  /** Whether the run is not wanted any more, asked after each wait for another switch. */
  readonly isMoot?: () => Promise<boolean>;
}

/** How a run of switch-to-configuration ended. */
export interface SwitchRun {
  readonly verdict: SwitchVerdict;
  /** What failed in the system's activation script. */
  readonly activated: FailingSnippets;
  readonly details: Details;
}

/**
 * Runs a system's switch-to-configuration and waits a while for another one that holds the
 * lock. Throws INTERRUPTED, TOOL_MISSING, …
 */
export async function runSwitch(
  order: SwitchOrder,
  signal: AbortSignal | undefined,
  { activator, timers, log, store }: SwitchTools,
): Promise<SwitchRun> {
  const { toplevel, action, ranBefore, knownSnippets, unchecked = false, isMoot } = order;
  for (let tries = 1; ; tries++) {
    log.info(`switch-to-configuration ${action}`);
    const result = await activator.activate(toplevel, action, signal, { unchecked });
    const running = { before: ranBefore, after: await store.runningToplevel() };
    const verdict = judgeSwitch({ action, toplevel, result, running, knownSnippets });
    const isLocked = verdict.kind === "notBegun" && verdict.why === "locked";
    const snippets = result.facts.failedSnippets.map(snippetText);
    const details = { lastLines: [...result.lastLines] };
    const run: SwitchRun = { verdict, activated: { toplevel, snippets }, details };
    // A program that waits for the lock by itself has waited long enough.
    if (!isLocked || result.timedOut || tries >= LOCK_TRIES) return run;
    log.warn("another switch-to-configuration runs; waiting for it");
    await timers.sleep(LOCK_WAIT_MS, signal);
    if (await isMoot?.()) return run;
  }
}

import { toPullError } from "../../core/errors.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { TickOutcome } from "../poll/finding.ts";
import { runHook, type HookTools } from "../update/hooks.ts";

/** What telling about failures takes. */
export type FailureHookTools = HookTools & Pick<AgentTools, "store">;

/** What of a tick counts here. */
type HeardTick = Pick<TickOutcome, "error"> & Partial<Pick<TickOutcome, "release" | "decision">>;

/**
 * Runs the hook `onFailure` after ticks that failed: once for each code and release, and again
 * when the same happens after a tick that did not fail.
 */
export class FailureHook {
  readonly #tools: FailureHookTools;
  /** What was told last; null after a tick that did not fail. */
  #told: string | null = null;

  constructor(tools: FailureHookTools) {
    this.#tools = tools;
  }

  /**
   * Hears how a tick ended; of one that threw, only its error. A hook that fails is a warning.
   * Throws INTERRUPTED.
   */
  async hear(
    { error, release = null, decision }: HeardTick,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    if (error?.code === "INTERRUPTED" || error?.code === "AGENT_BUSY") return;
    // What failed is only waited for: nothing has changed.
    if (error === null && decision?.kind === "backoff") return;
    const news = error && `${error.code} ${release?.digest ?? ""}`;
    if (news === this.#told) return;
    this.#told = news;
    if (error === null) return;
    const { store, log } = this.#tools;
    const { code, message } = error;
    try {
      const previous = await store.runningToplevel();
      const toplevel = release?.toplevel ?? null;
      const facts = { release, toplevel, previous, result: "failed", code, message } as const;
      await runHook("onFailure", facts, { signal }, this.#tools);
    } catch (thrown) {
      const failure = toPullError(thrown);
      if (failure.code === "INTERRUPTED") throw failure;
      log.warn(failure.message, { code: failure.code });
    }
  }
}

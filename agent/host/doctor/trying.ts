import { adviceFor } from "../../core/doctor/advice.ts";
import { about, type CheckId, type CheckResult } from "../../core/doctor/result.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import type { AgentTools } from "../agent-tools.ts";

/** What trying takes. */
export type TryTools = Pick<AgentTools, "examination" | "timers">;

/** The longest that one try takes, milliseconds. */
export const TRY_MS = 60_000;

/**
 * Tries things one by one: each in a bounded time, and so that what one throws, or that it hangs,
 * does not end the others.
 */
export class Trial {
  readonly #tools: TryTools;
  readonly signal: AbortSignal | undefined;

  constructor(tools: TryTools, signal: AbortSignal | undefined) {
    this.#tools = tools;
    this.signal = signal;
  }

  /** Whether everything can be tried. */
  get isRoot(): boolean {
    return this.#tools.examination.isRoot;
  }

  /**
   * The results of `work`, or what its error means for the check `id`. Throws INTERRUPTED if somebody
   * stops it.
   */
  async of(
    id: CheckId,
    work: (signal: AbortSignal) => Promise<CheckResult | readonly CheckResult[]>,
    subject: string | null = null,
  ): Promise<readonly CheckResult[]> {
    const done = await this.value(work);
    if ("value" in done) return [done.value].flat();
    return [this.failure(id, done.error, subject)];
  }

  /** What `work` gives or throws, in a bounded time. Throws INTERRUPTED if somebody stops it. */
  async value<T>(
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<{ readonly value: T } | { readonly error: PullError }> {
    const over = new AbortController();
    const late = new AbortController();
    const ours = this.signal ? AbortSignal.any([this.signal, late.signal]) : late.signal;
    const limit = this.#tools.timers.sleep(TRY_MS, over.signal).then(() => {
      late.abort();
      throw new PullError("TOOL_TIMEOUT", `expected it within ${TRY_MS / 1000} s`);
    });
    try {
      return { value: await Promise.race([work(ours), limit]) };
    } catch (thrown) {
      if (this.signal?.aborted) throw new PullError("INTERRUPTED", "stopped before all was tried");
      return { error: late.signal.aborted ? tooLate() : toPullError(thrown) };
    } finally {
      limit.catch(() => undefined);
      over.abort();
    }
  }

  /** What an error means for a check: what only root may do was not tried by others. */
  failure(id: CheckId, error: PullError, subject: string | null = null): CheckResult {
    const it = about(id, subject);
    const { code, message } = error;
    if (!this.isRoot && (code === "PERMISSION_DENIED" || isDenied(error.cause))) {
      return it.untried(message, "run it as root");
    }
    if (code === "TOOL_MISSING") return it.untried(message, adviceFor(code));
    return it.failed(message, adviceFor(code), code);
  }
}

function tooLate(): PullError {
  return new PullError("TOOL_TIMEOUT", `expected it within ${TRY_MS / 1000} s`);
}

function isDenied(cause: unknown): boolean {
  const code = (cause as NodeJS.ErrnoException | null | undefined)?.code;
  return code === "EACCES" || code === "EPERM";
}

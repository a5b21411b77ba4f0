import type { AgentTools } from "../agent-tools.ts";

/** What the watch takes. */
export type StrayTools = Pick<AgentTools, "strayErrors" | "closeConnections" | "log">;

/**
 * Keeps the service alive if a library throws where nobody can catch it. What it threw for may
 * never end by itself, so that the tick is ended at its next safe point, with this error; a
 * download is resumed in the next one, over new connections.
 */
export class StrayWatch {
  readonly #tools: StrayTools;
  readonly #stop: () => void;
  #tick = new AbortController();

  constructor(tools: StrayTools) {
    this.#tools = tools;
    this.#stop = tools.strayErrors.listen((error) => {
      tools.log.error(error.message, { code: error.code, stack: error.stack });
      this.#tick.abort(error);
    });
  }

  /** Does something with a signal that comes with `signal`, or with the next stray error. */
  async during<T>(signal: AbortSignal, work: (either: AbortSignal) => Promise<T>): Promise<T> {
    const tick = new AbortController();
    this.#tick = tick;
    try {
      return await work(AbortSignal.any([signal, tick.signal]));
    } finally {
      if (tick.signal.aborted) await this.#tools.closeConnections();
    }
  }

  /** Stray errors end the process again. */
  end(): void {
    this.#stop();
  }
}

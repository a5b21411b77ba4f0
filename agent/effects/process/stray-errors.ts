import { PullError } from "../../core/errors.ts";
import type { StrayErrors } from "../../core/ports.ts";

/** Who hears of errors, the last one first. */
const listeners: ((error: PullError) => void)[] = [];

function hear(thrown: unknown): void {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const error = new PullError("INTERNAL", `an error outside of any call: ${message}`, {
    cause: thrown,
  });
  if (thrown instanceof Error && thrown.stack !== undefined) error.stack = thrown.stack;
  listeners.at(-1)?.(error);
}

/**
 * Errors that a library throws from a callback, where nobody can catch them (Node: uncaughtException
 * and unhandledRejection). Without a listener they end the process.
 */
export const processStrayErrors: StrayErrors = {
  listen(listener) {
    if (listeners.length === 0) {
      process.on("uncaughtException", hear);
      process.on("unhandledRejection", hear);
    }
    listeners.push(listener);
    return () => {
      listeners.splice(listeners.indexOf(listener), 1);
      if (listeners.length > 0) return;
      process.off("uncaughtException", hear);
      process.off("unhandledRejection", hear);
    };
  },
};

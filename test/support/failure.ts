import { PullError } from "../../agent/core/errors.ts";

/** The PullError that a call throws; anything else that it throws is passed on. */
export function failureOf(call: () => unknown): PullError {
  try {
    call();
  } catch (thrown) {
    if (thrown instanceof PullError) return thrown;
    throw thrown;
  }
  throw new Error("expected a PullError, nothing was thrown");
}

/** The PullError with which a promise is rejected. */
export async function rejectionOf(promise: Promise<unknown>): Promise<PullError> {
  try {
    await promise;
  } catch (thrown) {
    if (thrown instanceof PullError) return thrown;
    throw thrown;
  }
  throw new Error("expected a PullError, the promise was fulfilled");
}

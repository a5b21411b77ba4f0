import { backoffMs } from "../../core/update/backoff.ts";
import { isTransient } from "../../core/update/machine.ts";
import type { KnownReason, Reason } from "../../core/update/states.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { Happening } from "./happening.ts";

/** What it takes to say when to try again. */
export type RetryTools = Pick<AgentTools, "settings" | "clock" | "random">;

/**
 * When to try again after so many attempts. What cannot mend itself is only looked at again in
 * case somebody changed the host.
 */
export function retryAt(
  attempts: number,
  code: Reason["code"],
  { settings, clock, random }: RetryTools,
): string {
  const { retryBase: base, retryMax: max } = settings.limits;
  const wait = isTransient(code) ? backoffMs(attempts, { base, max }, random()) : max;
  return new Date(clock.now().getTime() + wait).toISOString();
}

/**
 * An attempt failed and left the host as it was. The waits begin anew after one that `advanced`:
 * it brought something that the next attempt goes on with.
 */
export function attemptFailed(
  { attempts, advanced = false }: { attempts: number; advanced?: boolean },
  { code, message }: KnownReason,
  tools: RetryTools,
): Happening {
  return {
    type: "AttemptFailed",
    reason: { code, message },
    retryAt: retryAt(advanced ? 1 : attempts + 1, code, tools),
    ...(advanced && { advanced }),
  };
}

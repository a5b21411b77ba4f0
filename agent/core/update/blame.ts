import type { ErrorCode } from "../errors.ts";

/**
 * Innocent until shown guilty: whose fault it is that a system did not prove itself. A system
 * is denied for good only for its own fault. What may be the world's leads back too, and is
 * tried again a few times, since each try costs the host a switch. Whatever cuts an activation off
 * (a signal, a power cut, a time limit, an agent that was restarted) may be the world's.
 */

/** What the health gate found wrong. */
export type Problem =
  /** Another system runs than the one that was activated or booted. */
  | { readonly kind: "wrongSystem" }
  /** Units failed, were restarted again and again, or are not active any more. */
  | { readonly kind: "units"; readonly units: readonly string[] }
  /** One of the operator's checks did not pass. */
  | { readonly kind: "check" }
  /** The host has another name now, by which it is not this system's in the channel. */
  | { readonly kind: "name" }
  /** No mirror gave a release. */
  | { readonly kind: "mirror" };

/** `own`: the system is shown to be at fault. `world`: it may be something else. */
export type Blame = "own" | "world";

/**
 * Blames the system, or not. `isUnchanged` says whether a unit is defined alike in the system
 * before and in this one: what failed in it then came from outside of the definition, such as
 * a remote that is down. A definition that changed, or is new, speaks against the system.
 *
 * What this cannot tell: an unchanged unit may fail because of something else in the new
 * system (a removed user, a changed file in /etc), and a changed one because of the world. The
 * first costs a few more tries and is not denied, the second is denied although another try
 * might do. That a unit fails in the old system too after the way back proves nothing: the
 * release may have migrated its data.
 */
export function blameFor(problem: Problem, isUnchanged: (unit: string) => boolean): Blame {
  switch (problem.kind) {
    // A system that names its host itself is refused before it is activated: it is the network
    // that gave this name.
    case "name":
    case "mirror":
      return "world";
    case "units":
      return problem.units.length > 0 && problem.units.every(isUnchanged) ? "world" : "own";
    case "wrongSystem":
    case "check":
      return "own";
    default:
      return problem satisfies never;
  }
}

/** What is only ever thrown because of the system itself. */
const OWN: readonly ErrorCode[] = ["HEALTH_FAILED", "SPECIALISATION_MISSING", "NOT_A_SYSTEM"];

/**
 * Whether an error that ended a step speaks against the system. Any other, such as a full disk, a
 * missing program or a defect of the agent, would have come with another system too.
 */
export function isOwnFault(code: ErrorCode): boolean {
  return OWN.includes(code);
}

/** How often and when a system is tried again whose failure may be the world's. */
export interface RetryPolicy {
  /** Attempts in all; at least 1. */
  readonly attempts: number;
  /** Wait before the second attempt, milliseconds; each later wait is four times as long. */
  readonly wait: number;
}

/**
 * So long at most is waited between two tries: a day, in which one switch is not many. So long
 * is waited, too, before another release may bring a system again that was tried often enough.
 */
export const MAX_WAIT_MS = 24 * 60 * 60_000;

/**
 * Milliseconds until the next try after `failures` of them, or null when only a person or
 * another release leads on. What takes a reboot is tried again once.
 */
export function nextTry(
  failures: number,
  takesReboot: boolean,
  { attempts, wait }: RetryPolicy,
): number | null {
  const most = takesReboot ? Math.min(attempts, 2) : attempts;
  if (failures >= most) return null;
  return Math.min(wait * 4 ** Math.max(0, failures - 1), MAX_WAIT_MS);
}

import type { Release } from "../../core/formats/manifest.ts";
import { setsProfile } from "../../core/update/activation.ts";
import type { KnownReason } from "../../core/update/states.ts";
import type { NotBegun, SwitchVerdict } from "../../core/update/switch-verdict.ts";
import type { Happening } from "./happening.ts";
import { attemptFailed, type RetryTools } from "./retry.ts";
import { beginBootCommit, type ProofTools } from "./take-over.ts";

/** A state with an attempt that touched nothing. */
interface Attempt {
  readonly release: Release;
  readonly attempts: number;
}

/** The code of a switch that was not begun. */
export const NOT_BEGUN_CODES: Readonly<Record<NotBegun, KnownReason["code"]>> = {
  locked: "SWITCH_LOCKED",
  refused: "SWITCH_REFUSED",
  inhibited: "SWITCH_REFUSED",
};

/**
 * What a switch leads to that was not begun. It is no fault of the system: nothing is undone
 * and nothing denied. A changed inhibitor takes a boot.
 */
export async function notBegun(
  attempt: Attempt,
  { why, message }: Extract<SwitchVerdict, { kind: "notBegun" }>,
  signal: AbortSignal | undefined,
  tools: ProofTools & RetryTools,
): Promise<Happening> {
  const words = `not begun: ${message}`;
  return why === "inhibited"
    ? takesBoot(attempt, words, signal, tools)
    : attemptFailed(attempt, { code: NOT_BEGUN_CODES[why], message: words }, tools);
}

/**
 * What a system leads to that only a boot brings: it becomes the boot default if the release's
 * mode says so, and is not begun otherwise.
 */
export async function takesBoot(
  attempt: Attempt,
  message: string,
  signal: AbortSignal | undefined,
  tools: ProofTools & RetryTools,
): Promise<Happening> {
  const { release } = attempt;
  if (!setsProfile(release.mode)) {
    return attemptFailed(attempt, { code: "BOOT_REQUIRED", message }, tools);
  }
  const event = await beginBootCommit(release, signal, tools);
  return event.type === "CommitBegun" ? { ...event, message } : event;
}

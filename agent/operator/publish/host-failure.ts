import { PullError } from "../../core/errors.ts";
import type { HostSpec } from "./host-spec.ts";

/** A host whose system could not be evaluated or built, and why. */
export interface HostFailure {
  readonly hostname: string;
  readonly error: PullError;
}

/** What a hosts file says, and the hosts of it that cannot be evaluated. */
export interface HostsInFile {
  readonly hosts: readonly HostSpec[];
  readonly failed: readonly HostFailure[];
}

/** Longer lists are cut: one mistake in a shared module fails every host. */
const MAX_SHOWN = 10;

/** One line for each host that failed, the first ones of many. */
export function describeFailures(failures: readonly HostFailure[]): string {
  const shown = failures
    .slice(0, MAX_SHOWN)
    .map(({ hostname, error }) => `${hostname}: ${error.message}`);
  const more = failures.length - shown.length;
  return [...shown, ...(more > 0 ? [`and ${more} more`] : [])].join("\n");
}

/**
 * One error for all of these, and what the operator may do: NOT_A_SYSTEM if that is what each of
 * them is, else BUILD_FAILED.
 */
export function buildFailed(failures: readonly HostFailure[], of: number): PullError {
  const isBuilt = failures.every(({ error }) => error.code === "NOT_A_SYSTEM");
  const advice =
    failures.length < of ? "\n`--keep-going` publishes the others, and these as they were" : "";
  const first = of > 1 ? `${failures.length} of ${of} hosts failed:\n` : "";
  return new PullError(
    isBuilt ? "NOT_A_SYSTEM" : "BUILD_FAILED",
    `${first}${describeFailures(failures)}${advice}`,
    { cause: failures[0]?.error },
  );
}

import { changesRunningSystem, setsProfile } from "./activation.ts";
import { longestBackoff } from "./backoff.ts";
import { MAX_WAIT_MS } from "./blame.ts";
import { driftOf } from "./drift.ts";
import type { Observation } from "./observation.ts";
import { denialOf, isSameSystem, type AgentRecord } from "./record.ts";
import type { Reason, State, StateOf } from "./states.ts";
import type { Release } from "../formats/manifest.ts";
import type { Wait } from "../schedule/waiting.ts";

/** What to do about an accepted release, and why. */
export type Decision =
  /** The host is what the release says, and that is recorded. */
  | { readonly kind: "active" }
  /** The host is what the release says, but this release is not recorded yet. */
  | { readonly kind: "adopt" }
  /** The release was activated, then somebody changed the host by hand. It is left alone. */
  | { readonly kind: "drifted"; readonly found: string | null }
  /** This system failed here before. */
  | { readonly kind: "denied"; readonly reason: Reason }
  /** The last attempt failed; the next one comes at `until`, or with null when a person asks. */
  | { readonly kind: "backoff"; readonly until: string | null; readonly reason: Reason }
  /** The host is to switch to it later: at least one thing is waited for. */
  | { readonly kind: "waiting"; readonly waits: readonly Wait[] }
  | { readonly kind: "update" };

/**
 * How much a person wants it now. The service is `patient`. `retry` does not wait for the
 * time of the next attempt, and `again` also ignores denials and drift.
 */
export type Insistence = "patient" | "retry" | "again";

/** Whether the agent leaves a host alone that was changed by hand, or brings the release back. */
export type DriftPolicy = "keep" | "revert";

/** What a decision about a release depends on. */
export interface DecisionInput {
  readonly record: AgentRecord;
  readonly release: Release;
  readonly host: Observation;
  readonly now: Date;
  /** `patient` if absent. */
  readonly insistence?: Insistence;
  /** What the release's rollout and the host's own rules have against applying it now. */
  readonly waits?: readonly Wait[];
  /** `keep` if absent. */
  readonly driftPolicy?: DriftPolicy;
  /** `limits.retryMax` in milliseconds; no limit if absent. */
  readonly retryMax?: number;
  /** `activation.attempts`; no limit if absent. */
  readonly attempts?: number;
}

/** Decides about a release. Pure: the same input gives the same decision. */
export function decide({
  record,
  release,
  host,
  now,
  insistence = "patient",
  waits = [],
  driftPolicy = "keep",
  retryMax = Infinity,
  attempts = Infinity,
}: DecisionInput): Decision {
  const { committed, state } = record;
  const recorded = committed?.digest === release.digest && committed.mode === release.mode;
  // Whether this host was asked for the same before: a refresh, or a release for other hosts.
  const asked = committed?.toplevel === release.toplevel && committed.mode === release.mode;
  // The next boot tries it; until then nothing more can be done for it.
  const isWaiting = record.pendingReboot?.trial && !record.pendingReboot.wayBack;
  if (
    isWaiting &&
    setsProfile(release.mode) &&
    record.pendingReboot?.release.toplevel === release.toplevel
  ) {
    return { kind: "active" };
  }
  const isThere = isActive(record, release, host);
  const denial = denialOf(record, release, release.mode);
  // A system that failed here and still runs is not what the release asked for.
  const failed = !recorded && (denial !== undefined || isLeft(record, release));
  if (isThere && !failed && !lacksSpecialisation(record, release, host)) {
    return { kind: recorded ? "active" : "adopt" };
  }
  const binding = waits.filter(({ binds }) => insistence === "patient" || binds === "everyone");
  const go: Decision =
    binding.length > 0 ? { kind: "waiting", waits: binding } : { kind: "update" };
  if (insistence === "again") return go;
  if (denial) return { kind: "denied", reason: denial.reason };
  if (asked && !isThere) {
    const drift = driftOf(record, host);
    // A person or the boot loader chose another system to boot, and had a reason.
    if (driftPolicy === "keep" || drift?.what === "booted") {
      return { kind: "drifted", found: drift?.found ?? null };
    }
  }
  const wait =
    insistence === "patient" ? backoff(state, release, { now, retryMax, attempts }) : null;
  return wait ?? go;
}

/** Whether a way back from this system is still owed. */
function isLeft({ pendingReboot, unfinishedWayBack }: AgentRecord, { toplevel }: Release): boolean {
  const left = [pendingReboot?.wayBack ? pendingReboot.release : null, unfinishedWayBack?.release];
  return left.some((release) => release?.toplevel === toplevel);
}

/**
 * The wait after a failed attempt; null if it is over, or if another release brings news. A
 * system that was undone waits although another release brings it: each try costs a switch.
 */
function backoff(
  state: State,
  release: Release,
  { now, retryMax, attempts }: { now: Date; retryMax: number; attempts: number },
): Decision | null {
  if (state.name === "RollingBack" && isSameSystem(state.release, release)) {
    // The way back is barred and tried with every poll; this system is tried no more than others.
    const isSpent = (state.undone ?? 0) + 1 >= attempts;
    return isSpent ? { kind: "backoff", until: null, reason: state.reason } : null;
  }
  if (state.name !== "Failed") return null;
  const isSame = state.release.digest === release.digest;
  const { undone = 0, gaveUp = false, retryAt: until, reason } = state;
  if (isSame && gaveUp) return { kind: "backoff", until: null, reason };
  const waits = isSame || (undone > 0 && isSameSystem(state.release, release));
  return waits && isAhead(state, now, retryMax) ? { kind: "backoff", until, reason } : null;
}

/**
 * Whether the next try is still to come. One that is further ahead than any wait may be was
 * recorded by a clock that was wrong, and is due.
 */
function isAhead(failed: StateOf<"Failed">, now: Date, retryMax: number): boolean {
  const { retryAt, undone = 0 } = failed;
  const wait = Date.parse(retryAt) - now.getTime();
  const longest = Math.max(undone > 0 ? MAX_WAIT_MS : 0, longestBackoff(retryMax));
  return wait > 0 && wait <= longest;
}

/**
 * Whether another specialisation of the system is to run. One that a person chose among those of
 * the release is left alone; after a boot, which starts the system itself, it is activated again.
 */
function lacksSpecialisation(record: AgentRecord, release: Release, host: Observation): boolean {
  const { toplevel, mode, specialisation: wanted } = release;
  if (!changesRunningSystem(mode) || host.running !== toplevel) return false;
  if (wanted === host.specialisation) return false;
  const before = record.committed?.toplevel === toplevel ? record.committed : null;
  return before?.specialisation !== wanted || host.specialisation === undefined;
}

function isActive(record: AgentRecord, release: Release, host: Observation): boolean {
  const { toplevel, mode } = release;
  const committed = record.committed?.toplevel === toplevel ? record.committed : null;
  if (mode === "dry-activate") {
    return host.running === toplevel || committed?.mode === "dry-activate";
  }
  // If the running system cannot be seen, what was committed last is what runs.
  const waits =
    record.pendingReboot?.release.toplevel === toplevel && !record.pendingReboot.wayBack;
  const runs = host.running === null ? committed !== null : host.running === toplevel || waits;
  return (!setsProfile(mode) || host.profile === toplevel) && (!changesRunningSystem(mode) || runs);
}

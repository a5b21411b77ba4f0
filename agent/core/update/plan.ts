import { changesRunningSystem, setsProfile } from "./activation.ts";
import { driftOf } from "./drift.ts";
import type { Observation } from "./observation.ts";
import { denialOf, type AgentRecord } from "./record.ts";
import type { Reason } from "./states.ts";
import type { Release } from "../formats/manifest.ts";
import type { Wait } from "../schedule/waiting.ts";

export type { Observation } from "./observation.ts";

/** What to do about an accepted release, and why. */
export type Decision =
  /** The host is what the release says. */
  | { readonly kind: "active" }
  /** It already is, but this release was not recorded yet. */
  | { readonly kind: "adopt" }
  /** The release was activated, then somebody changed the host by hand. It is left alone. */
  | { readonly kind: "drifted"; readonly found: string | null }
  /** This system failed here before. */
  | { readonly kind: "denied"; readonly reason: Reason }
  /** The last attempt failed; the next one comes at `until`. */
  | { readonly kind: "backoff"; readonly until: string; readonly reason: Reason }
  /** It is this host's, but not yet; at least one thing is waited for. */
  | { readonly kind: "waiting"; readonly waits: readonly Wait[] }
  | { readonly kind: "update" };

/**
 * How much a person wants it now: `retry` does not wait for the next attempt, `again`
 * also ignores denials and drift. The service itself is `patient`.
 */
export type Insistence = "patient" | "retry" | "again";

/** What becomes of a host that was changed by hand: it is left alone, or the release comes back. */
export type DriftPolicy = "keep" | "revert";

/**
 * Decides about a release. `waits` is what the release's rollout and the host's own rules
 * have against applying it now. Pure: same record, host and time, same decision.
 */
export function decide(
  record: AgentRecord,
  release: Release,
  host: Observation,
  now: Date,
  insistence: Insistence = "patient",
  waits: readonly Wait[] = [],
  driftPolicy: DriftPolicy = "keep",
): Decision {
  const { committed, state } = record;
  const recorded = committed?.digest === release.digest && committed.mode === release.mode;
  // A refresh, or a release for other hosts, asks nothing new of this one.
  const asked = committed?.toplevel === release.toplevel && committed.mode === release.mode;
  const active = isActive(record, release, host);
  if (active) return { kind: recorded ? "active" : "adopt" };
  const binding = waits.filter(({ binds }) => insistence === "patient" || binds === "everyone");
  const go: Decision =
    binding.length > 0 ? { kind: "waiting", waits: binding } : { kind: "update" };
  if (insistence === "again") return go;
  const denial = denialOf(record, release.toplevel);
  if (denial) return { kind: "denied", reason: denial.reason };
  if (asked) {
    const drift = driftOf(record, host);
    // Whoever chose another system to boot, a person or the boot loader, had a reason.
    if (driftPolicy === "keep" || drift?.what === "booted") {
      return { kind: "drifted", found: drift?.found ?? null };
    }
  }
  if (
    insistence === "patient" &&
    state.name === "Failed" &&
    state.release.digest === release.digest &&
    Date.parse(state.retryAt) > now.getTime()
  ) {
    return { kind: "backoff", until: state.retryAt, reason: state.reason };
  }
  return go;
}

function isActive(record: AgentRecord, release: Release, host: Observation): boolean {
  const { toplevel, mode } = release;
  const committed = record.committed?.toplevel === toplevel ? record.committed : null;
  if (mode === "dry-activate") {
    return host.running === toplevel || committed?.mode === "dry-activate";
  }
  // Where the running system cannot be seen, what was committed last is what runs.
  const waits =
    record.pendingReboot?.release.toplevel === toplevel && !record.pendingReboot.wayBack;
  const runs = host.running === null ? committed !== null : host.running === toplevel || waits;
  return (!setsProfile(mode) || host.profile === toplevel) && (!changesRunningSystem(mode) || runs);
}

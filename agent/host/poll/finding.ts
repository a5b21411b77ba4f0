import type { PullError } from "../../core/errors.ts";
import type { Release } from "../../core/formats/manifest.ts";
import type { TrustMemories } from "../../core/release/acceptance.ts";
import type { AgentRecord } from "../../core/update/record.ts";
import type { Decision } from "../../core/update/plan.ts";
import type { MirrorVerdict } from "./poll.ts";

/** What a poll and the decision about it came to. */
export interface Finding {
  readonly verdicts: readonly MirrorVerdict[];
  /** Null if no release was accepted, or it does not name this host. */
  readonly release: Release | null;
  /** The release that comes after `release`, if that stands before it as a barrier. */
  readonly next?: Release | undefined;
  readonly decision: Decision | null;
  readonly error: PullError | null;
}

/** A finding with what has to be remembered of it. */
export interface FoundRelease extends Finding {
  readonly memories: TrustMemories;
  /** Decides once more, as things are now: fetching may have taken hours. */
  readonly lookAgain: (record: AgentRecord, how: SecondLook) => Promise<FoundRelease>;
}

/** How to look at a release again. */
export interface SecondLook {
  /**
   * Whether a newer release counts. The one that was found stands if no mirror has a newer
   * one, as long as it is still acceptable.
   */
  readonly askMirrors: boolean;
  /** When the mirrors need not be waited for any longer; as in a poll, if absent. */
  readonly enough?: "answer";
  /** Ends the asking (INTERRUPTED). */
  readonly signal?: AbortSignal | undefined;
}

/** What a tick did about its finding. */
export interface TickOutcome extends Finding {
  readonly record: AgentRecord;
  /** True if this tick activated and committed the release. */
  readonly updated: boolean;
}

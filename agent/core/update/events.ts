import type { Release } from "../formats/manifest.ts";
import type { FailingSnippets } from "./record.ts";
import type { Baseline, KnownReason, StateOf } from "./states.ts";

/** A fact that happened. `at` is when it happened. */
export type Event = { readonly at: string } & (
  | { readonly type: "ReleaseAccepted"; readonly release: Release }
  | { readonly type: "ReleaseWithdrawn"; readonly message: string }
  /** The host was found to be what the release asks for. */
  | { readonly type: "AlreadyActive"; readonly release: Release; readonly previous: string | null }
  | { readonly type: "FetchBegun" }
  | { readonly type: "ClosureImported" }
  | {
      readonly type: "BaselineRecorded";
      readonly baseline: Baseline;
      readonly bootId: string;
      /** What fails in the system that runs before anything is changed. */
      readonly failing?: FailingSnippets;
    }
  /** An agent found the state that an earlier one left behind, and goes on with it. */
  | { readonly type: "AgentRestarted" }
  | { readonly type: "ActivationBegun" }
  | {
      readonly type: "ActivationSucceeded";
      readonly message?: string;
      readonly activated?: FailingSnippets;
      /** Units whose jobs failed, for the health gate; empty if something did that nobody names. */
      readonly failedJobs?: readonly string[];
    }
  | { readonly type: "HealthConfirmed" }
  /** The system is to become the boot default. `rebootNeeded`: only a boot can prove it. */
  | { readonly type: "CommitBegun"; readonly rebootNeeded: boolean; readonly message?: string }
  /** `bootId` is the boot in which that happened. */
  | {
      readonly type: "BootDefaultSet";
      readonly bootId: string;
      /** True if another system runs although this one is proven: a boot brings it. */
      readonly rebootNeeded?: boolean;
      readonly message?: string;
    }
  /** The next boot, after `bootId`, tries the system; the boot default is as it was. */
  | { readonly type: "TrialArmed"; readonly bootId: string }
  | { readonly type: "ActivationRejected"; readonly reason: KnownReason }
  /** Not the system's fault, as far as is known: it is undone and tried again. */
  | { readonly type: "ActivationInterrupted"; readonly reason: KnownReason }
  /**
   * Somebody switched to another system, or chose another boot default, meanwhile. That is not
   * undone. `gaveUp`: the drift policy leaves the host alone.
   */
  | {
      readonly type: "ChangedByHand";
      readonly reason: KnownReason;
      readonly retryAt: string;
      readonly gaveUp?: boolean;
    }
  /** `rebootFrom` is this boot, if only another boot makes the way back complete. */
  | {
      readonly type: "RollbackSucceeded";
      readonly rebootFrom?: string;
      /** What is not as it was before, or did not go smoothly. */
      readonly message?: string;
      readonly activated?: FailingSnippets;
    }
  | { readonly type: "RollbackFailed"; readonly message: string }
  | {
      readonly type: "RevertBegun";
      readonly from: string | null;
      /** The system that the person does not want back; what the profile pointed at if absent. */
      readonly left?: string | null;
      readonly target: StateOf<"Reverting">["target"];
      /** Why the host no longer follows the release that it leaves. */
      readonly reason: KnownReason;
    }
  | {
      readonly type: "RevertSucceeded";
      /** Whether it takes full effect only with a reboot. */
      readonly needsReboot?: boolean;
      readonly message?: string;
      readonly activated?: FailingSnippets;
    }
  | { readonly type: "RevertFailed"; readonly message: string }
  /** `advanced`: it brought something that the next attempt goes on with. */
  | {
      readonly type: "AttemptFailed";
      readonly reason: KnownReason;
      readonly retryAt: string;
      readonly advanced?: boolean;
    }
  /** `gaveUp`: it is not tried again by itself. */
  | { readonly type: "LeftoversRemoved"; readonly retryAt: string; readonly gaveUp?: boolean }
  /**
   * The release that waited for a boot is no longer this host's. `runs`: its system runs, after a
   * live switch that proved it.
   */
  | { readonly type: "BootCalledOff"; readonly reason: KnownReason; readonly runs: boolean }
  | { readonly type: "RebootRequested" }
  /** The reboot that was just requested was refused, as by an inhibitor: it does not count. */
  | { readonly type: "RebootRefused" }
  /** The hook preReboot is about to run; `RebootEnded`: postBoot ran. */
  | { readonly type: "RebootPrepared" }
  | { readonly type: "RebootEnded" }
  | { readonly type: "RebootNoticed"; readonly bootId: string }
  /** The boot that was to lead back, `bootId`, started the system again that failed. */
  | { readonly type: "WayBackMissed"; readonly bootId: string; readonly message: string }
  | { readonly type: "RebootSlotTaken" }
  | { readonly type: "RebootSlotReleased" }
);
export type EventType = Event["type"];
export type EventOf<Type extends EventType> = Extract<Event, { type: Type }>;

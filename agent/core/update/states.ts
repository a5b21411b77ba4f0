import * as z from "zod";
import { ERROR_CODES, type ErrorCode } from "../errors.ts";
import { openEnum } from "../formats/compatibility.ts";
import { releaseSchema } from "../formats/manifest.ts";
import { storePathSchema } from "../formats/store-path.ts";

/** A UTC time in ISO 8601, as it stands in `state.json`. */
export const timeSchema = z.iso.datetime();

/**
 * Why something failed: a stable code, and the same for people. The code may be one that only
 * another version of nixos-pull has.
 */
export const reasonSchema = z.strictObject({ code: openEnum(ERROR_CODES), message: z.string() });
export type Reason = z.infer<typeof reasonSchema>;

/** Why something failed just now, as this version names it. */
export interface KnownReason {
  readonly code: ErrorCode;
  readonly message: string;
}

/** What a host was before an activation: the way back. Recorded before anything is changed. */
export const baselineSchema = z.strictObject({
  /** What the system profile pointed at; null on a host that had no profile. */
  profile: storePathSchema.nullable(),
  /** The profile's generation; null on a host that had no profile. */
  generation: z.int().positive().nullable(),
  /** The system that ran; null if that is not known. */
  running: storePathSchema.nullable(),
  /** Units that had failed already: the new system is not to blame for them. */
  failedUnits: z.array(z.string()),
  /** Units that systemd had restarted already: the health gate ignores their restarts. */
  restartedUnits: z.array(z.string()),
  /** Units that were active and are to be so again; absent if they could not be seen. */
  activeUnits: z.array(z.string()).optional(),
});
export type Baseline = z.infer<typeof baselineSchema>;

/** The boot in which a state was written. Another boot ended everything that ran then. */
export const bootIdSchema = z.string().max(100);

const withRelease = { release: releaseSchema };
/** Activations of this system, in this mode, that were undone; absent for none. */
export const undoneSchema = z.int().positive().optional();

const withAttempts = {
  ...withRelease,
  /** Attempts at this release that failed, in whatever way, since one brought something. */
  attempts: z.int().nonnegative(),
  undone: undoneSchema,
};
const withBaseline = {
  ...withAttempts,
  baseline: baselineSchema,
  bootId: bootIdSchema,
  /** How often an agent found this state left behind by an earlier agent. */
  restarts: z.int().nonnegative(),
};

/** A way back that is under way, or was left for another release. */
export const rollingBackSchema = z.strictObject({
  name: z.literal("RollingBack"),
  ...withBaseline,
  reason: reasonSchema,
  /** Whether the system is to blame, so that it is not tried again. */
  deny: z.boolean(),
  rollbackAttempts: z.int().nonnegative(),
  /** True if the recorded system never ceased to be profile and boot default. */
  trial: z.boolean().optional(),
});

/** A rollback by hand that is under way, or was left for another release. */
export const revertingSchema = z.strictObject({
  name: z.literal("Reverting"),
  /** What the profile pointed at before. */
  from: storePathSchema.nullable(),
  target: z.strictObject({
    toplevel: storePathSchema,
    /** Null if the profile has no such generation any more, so that it gets a new one. */
    generation: z.int().positive().nullable(),
  }),
  failures: z.int().nonnegative(),
});

/** The states. Each says what is about to be done, and is on disk before it is done. */
export const stateSchema = z.discriminatedUnion("name", [
  /** There is nothing to do until a poll finds a release. */
  z.strictObject({ name: z.literal("Idle") }),
  /** The agent accepted a release for this host, and has done nothing for it yet. */
  z.strictObject({ name: z.literal("Candidate"), ...withAttempts }),
  /** The agent downloads the missing NARs and imports them into the store. */
  z.strictObject({ name: z.literal("Fetching"), ...withAttempts }),
  /** The closure is valid in the store, and a root holds it. */
  z.strictObject({ name: z.literal("Imported"), ...withAttempts }),
  /** The way back is recorded and held by roots; the deadline is being armed. */
  z.strictObject({ name: z.literal("Staged"), ...withBaseline }),
  /** switch-to-configuration proves the system without making it the boot default. */
  z.strictObject({ name: z.literal("Activating"), ...withBaseline }),
  /** The system runs, and the health gate examines it. */
  z.strictObject({
    name: z.literal("Verifying"),
    ...withBaseline,
    /** True if the host booted it, so that it is the boot default already. */
    afterBoot: z.boolean(),
    /** True if the boot was a trial: the recorded system is still profile and boot default. */
    trial: z.boolean().optional(),
    /** Units whose jobs failed in the switch; empty if nobody names them, absent if none did. */
    failedJobs: z.array(z.string()).optional(),
  }),
  /** The system is proven, or only a boot can prove it: it becomes the boot default. */
  z.strictObject({
    name: z.literal("Committing"),
    ...withBaseline,
    rebootNeeded: z.boolean(),
    /** Why it takes a boot, if the kernel is not the reason. */
    why: z.string().optional(),
    /** True if a trial boot has proven it. */
    tried: z.boolean().optional(),
  }),
  /** The next boot tries the system, and the recorded one stays the boot default. */
  z.strictObject({ name: z.literal("Armed"), ...withBaseline }),
  /** The host has switched to the release; the agent removes leftovers. */
  z.strictObject({ name: z.literal("Committed"), ...withBaseline }),
  /** The agent restores the recorded system. */
  rollingBackSchema,
  /** The recorded system is back; the agent removes leftovers. */
  z.strictObject({
    name: z.literal("RolledBack"),
    ...withBaseline,
    reason: reasonSchema,
    deny: z.boolean(),
  }),
  /** A person asked for an earlier generation; the agent switches to it. */
  revertingSchema,
  /** An attempt failed and left the system untouched; the next one may begin at `retryAt`. */
  z.strictObject({
    name: z.literal("Failed"),
    ...withAttempts,
    reason: reasonSchema,
    retryAt: timeSchema,
    /** True if only a person or another release leads on: it was tried often enough. */
    gaveUp: z.boolean().optional(),
  }),
]);

export type State = z.infer<typeof stateSchema>;
export type StateName = State["name"];
export type StateOf<Name extends StateName> = Extract<State, { name: Name }>;

/** States in which the host may be between two systems. They are finished before any poll. */
export function isPastTheLine(state: State): boolean {
  switch (state.name) {
    case "Staged":
    case "Activating":
    case "Verifying":
    case "Committing":
    case "Armed":
    case "Committed":
    case "RollingBack":
    case "RolledBack":
    case "Reverting":
      return true;
    case "Idle":
    case "Candidate":
    case "Fetching":
    case "Imported":
    case "Failed":
      return false;
    default:
      return state satisfies never;
  }
}

import { z } from "zod";
import { trustMemoriesSchema } from "./acceptance.ts";
import { ERROR_CODES, ERROR_KINDS, type ErrorCode } from "./errors.ts";
import { ACTIVATION_MODES, releaseSchema, sha256Schema, type Release } from "./manifest.ts";
import { storePathSchema } from "./store-path.ts";

/**
 * The agent's state machine. States say what is about to be done and are on disk
 * before it is done; events are facts that happened. Nothing here touches the world.
 *
 *   Idle → Candidate → Fetching → Imported → Staged → Activating → Verifying → Committed → Idle
 *             ↓           ↓          ↓          ↓          ↓            ↓
 *           Failed ←──────┴──────────┴──────────┘     RollingBack ←─────┘
 *             ↓                                            ↓
 *         Candidate (retry)                            RolledBack → Idle
 */

const timeSchema = z.iso.datetime();

const reasonSchema = z.strictObject({ code: z.enum(ERROR_CODES), message: z.string() });
export type Reason = z.infer<typeof reasonSchema>;

/** The system to go back to, recorded before anything is changed. */
const baselineSchema = z.strictObject({
  /** What the system profile pointed at; null on a host that had none. */
  profile: storePathSchema.nullable(),
  generation: z.int().positive().nullable(),
  /** What ran; null where it is not known. */
  running: storePathSchema.nullable(),
});
export type Baseline = z.infer<typeof baselineSchema>;

const withRelease = { release: releaseSchema };
const withAttempts = { ...withRelease, attempts: z.int().nonnegative() };
const withBaseline = { ...withAttempts, baseline: baselineSchema };

export const stateSchema = z.discriminatedUnion("name", [
  /** Nothing to do until a poll finds a release. */
  z.strictObject({ name: z.literal("Idle") }),
  /** A release was accepted for this host; nothing was done for it yet. */
  z.strictObject({ name: z.literal("Candidate"), ...withAttempts }),
  /** The missing NARs are being brought in and imported into the store. */
  z.strictObject({ name: z.literal("Fetching"), ...withAttempts }),
  /** The closure is valid in the store and held by a root. */
  z.strictObject({ name: z.literal("Imported"), ...withAttempts }),
  /** The way back is recorded; the profile is being set where the mode asks for it. */
  z.strictObject({ name: z.literal("Staged"), ...withBaseline }),
  /** switch-to-configuration runs, or ran when the agent died. */
  z.strictObject({ name: z.literal("Activating"), ...withBaseline }),
  /** It ended well; the system is being examined. */
  z.strictObject({ name: z.literal("Verifying"), ...withBaseline, rebootNeeded: z.boolean() }),
  /** The release is what this host is; leftovers are being removed. */
  z.strictObject({ name: z.literal("Committed"), ...withBaseline, rebootNeeded: z.boolean() }),
  /** The recorded system is being restored. */
  z.strictObject({
    name: z.literal("RollingBack"),
    ...withBaseline,
    reason: reasonSchema,
    rollbackAttempts: z.int().nonnegative(),
  }),
  /** The recorded system is back; leftovers are being removed. */
  z.strictObject({ name: z.literal("RolledBack"), ...withBaseline, reason: reasonSchema }),
  /** An attempt failed with the system untouched; it is repeated from `retryAt` on. */
  z.strictObject({
    name: z.literal("Failed"),
    ...withAttempts,
    reason: reasonSchema,
    retryAt: timeSchema,
  }),
]);

export type State = z.infer<typeof stateSchema>;
export type StateName = State["name"];
export type StateOf<Name extends StateName> = Extract<State, { name: Name }>;

/** A system that failed here; not tried again until another system is released. */
const deniedSchema = z.strictObject({
  toplevel: storePathSchema,
  sequence: z.int().positive(),
  digest: sha256Schema,
  reason: reasonSchema,
  at: timeSchema,
});

/** The release that this host last became. */
const committedSchema = z.strictObject({
  channel: releaseSchema.shape.channel,
  sequence: z.int().positive(),
  digest: sha256Schema,
  toplevel: storePathSchema,
  mode: z.enum(ACTIVATION_MODES),
  at: timeSchema,
  /** What the profile pointed at before. */
  previous: storePathSchema.nullable(),
  rebootNeeded: z.boolean(),
});

/** Everything that the agent remembers; one file, written whole. */
export const recordSchema = z.strictObject({
  formatVersion: z.literal(1),
  state: stateSchema,
  trust: trustMemoriesSchema,
  committed: committedSchema.nullable(),
  denied: z.array(deniedSchema),
});
export type AgentRecord = z.infer<typeof recordSchema>;

export const EMPTY_RECORD: AgentRecord = {
  formatVersion: 1,
  state: { name: "Idle" },
  trust: [],
  committed: null,
  denied: [],
};

/** Oldest entries are forgotten beyond this; a release denied 100 failures ago is long gone. */
const MAX_DENIED = 100;

/** A fact. `at` is when it happened. */
export type Event = { readonly at: string } & (
  | { readonly type: "ReleaseAccepted"; readonly release: Release }
  | { readonly type: "ReleaseWithdrawn"; readonly message: string }
  | { readonly type: "AlreadyActive"; readonly release: Release; readonly previous: string | null }
  | { readonly type: "FetchBegun" }
  | { readonly type: "ClosureImported" }
  | { readonly type: "BaselineRecorded"; readonly baseline: Baseline }
  | { readonly type: "ActivationBegun" }
  | { readonly type: "ActivationSucceeded"; readonly rebootNeeded: boolean }
  | { readonly type: "HealthConfirmed" }
  | { readonly type: "ActivationRejected"; readonly reason: Reason }
  | { readonly type: "RollbackSucceeded" }
  | { readonly type: "RollbackFailed"; readonly message: string }
  | { readonly type: "AttemptFailed"; readonly reason: Reason; readonly retryAt: string }
  | { readonly type: "LeftoversRemoved" }
  | { readonly type: "SystemDenied"; readonly reason: Reason }
);
export type EventType = Event["type"];

/** While the host is untouched, another release or a person may always change the plan. */
const ABANDONING = [
  "ReleaseAccepted",
  "ReleaseWithdrawn",
  "AlreadyActive",
  "SystemDenied",
] as const;

/** Which events each state can meet; anything else is a defect. */
const EXPECTED = {
  Idle: ["ReleaseAccepted", "AlreadyActive", "SystemDenied"],
  Candidate: ["FetchBegun", "AttemptFailed", ...ABANDONING],
  Fetching: ["ClosureImported", "AttemptFailed", ...ABANDONING],
  Imported: ["BaselineRecorded", "AttemptFailed", ...ABANDONING],
  Staged: ["ActivationBegun", "AttemptFailed"],
  // It fails without a verdict on the system where nothing was done: the lock was held.
  Activating: ["ActivationSucceeded", "ActivationRejected", "AttemptFailed"],
  Verifying: ["HealthConfirmed", "ActivationRejected"],
  Committed: ["LeftoversRemoved"],
  RollingBack: ["RollbackSucceeded", "RollbackFailed"],
  RolledBack: ["LeftoversRemoved"],
  Failed: ABANDONING,
} as const satisfies Record<StateName, readonly EventType[]>;

/** Whether an event may happen in a state. */
export function isExpected(state: StateName, event: EventType): boolean {
  return (EXPECTED[state] as readonly EventType[]).includes(event);
}

/**
 * The record after an event. Throws INTERNAL-worthy errors for an event that the
 * state cannot meet: going on from a state that was misunderstood could harm a host.
 */
export function advance(record: AgentRecord, event: Event): AgentRecord {
  const { state } = record;
  if (!isExpected(state.name, event.type)) {
    throw new Error(`event ${event.type} cannot happen in state ${state.name}`);
  }
  switch (event.type) {
    case "ReleaseAccepted": {
      const attempts =
        "attempts" in state && state.release.digest === event.release.digest ? state.attempts : 0;
      return { ...record, state: { name: "Candidate", release: event.release, attempts } };
    }
    case "ReleaseWithdrawn":
      return { ...record, state: { name: "Idle" } };
    case "AlreadyActive":
      return {
        ...record,
        state: { name: "Idle" },
        committed: committedOf(event.release, {
          at: event.at,
          previous: event.previous,
          // The same system, released again, still waits for its reboot.
          rebootNeeded:
            record.committed?.toplevel === event.release.toplevel && record.committed.rebootNeeded,
        }),
      };
    case "FetchBegun":
      return { ...record, state: { ...attempted(state), name: "Fetching" } };
    case "ClosureImported":
      return { ...record, state: { ...attempted(state), name: "Imported" } };
    case "BaselineRecorded":
      return {
        ...record,
        state: { ...attempted(state), name: "Staged", baseline: event.baseline },
      };
    case "ActivationBegun":
      return { ...record, state: { ...prepared(state), name: "Activating" } };
    case "ActivationSucceeded":
      return {
        ...record,
        state: { ...prepared(state), name: "Verifying", rebootNeeded: event.rebootNeeded },
      };
    case "HealthConfirmed": {
      const { rebootNeeded } = state as StateOf<"Verifying">;
      const from = prepared(state);
      return {
        ...record,
        state: { ...from, name: "Committed", rebootNeeded },
        committed: committedOf(from.release, {
          at: event.at,
          previous: from.baseline.profile,
          rebootNeeded,
        }),
        // It failed here once and now did not: what a person insisted on is no longer denied.
        denied: record.denied.filter(({ toplevel }) => toplevel !== from.release.toplevel),
      };
    }
    case "ActivationRejected": {
      const from = prepared(state);
      return {
        ...record,
        state: { ...from, name: "RollingBack", reason: event.reason, rollbackAttempts: 0 },
        denied: deny(record.denied, from.release, event),
      };
    }
    case "RollbackFailed": {
      const from = state as StateOf<"RollingBack">;
      return { ...record, state: { ...from, rollbackAttempts: from.rollbackAttempts + 1 } };
    }
    case "RollbackSucceeded":
      return {
        ...record,
        state: {
          ...prepared(state),
          name: "RolledBack",
          reason: (state as StateOf<"RollingBack">).reason,
        },
      };
    case "LeftoversRemoved":
      return { ...record, state: { name: "Idle" } };
    case "AttemptFailed": {
      const { release, attempts } = attempted(state);
      return {
        ...record,
        state: {
          name: "Failed",
          release,
          attempts: attempts + 1,
          reason: event.reason,
          retryAt: event.retryAt,
        },
      };
    }
    case "SystemDenied":
      return record.committed === null
        ? record
        : { ...record, committed: null, denied: deny(record.denied, record.committed, event) };
    default:
      return event satisfies never;
  }
}

function attempted(state: State): { release: Release; attempts: number } {
  const { release, attempts } = state as StateOf<"Candidate">;
  return { release, attempts };
}

function prepared(state: State): { release: Release; attempts: number; baseline: Baseline } {
  return { ...attempted(state), baseline: (state as StateOf<"Staged">).baseline };
}

function committedOf(
  release: Release,
  facts: { at: string; previous: string | null; rebootNeeded: boolean },
): NonNullable<AgentRecord["committed"]> {
  const { channel, sequence, digest, toplevel, mode } = release;
  return { channel, sequence, digest, toplevel, mode, ...facts };
}

function deny(
  denied: AgentRecord["denied"],
  release: { toplevel: string; sequence: number; digest: string },
  event: { reason: Reason; at: string },
): AgentRecord["denied"] {
  const { toplevel, sequence, digest } = release;
  return [
    ...denied.filter((entry) => entry.toplevel !== toplevel),
    { toplevel, sequence, digest, reason: event.reason, at: event.at },
  ].slice(-MAX_DENIED);
}

/** The denial that stands against a system on this host, if any. */
export function denialOf(
  record: AgentRecord,
  toplevel: string,
): AgentRecord["denied"][number] | undefined {
  return record.denied.find((entry) => entry.toplevel === toplevel);
}

/** States in which the host may be something between two systems; they are always finished first. */
export function isPastTheLine(state: State): boolean {
  switch (state.name) {
    case "Staged":
    case "Activating":
    case "Verifying":
    case "Committed":
    case "RollingBack":
    case "RolledBack":
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

/** Whether what failed with this code may succeed later with nothing changed by a person. */
export function isTransient(code: ErrorCode): boolean {
  return ERROR_KINDS[code].transient;
}

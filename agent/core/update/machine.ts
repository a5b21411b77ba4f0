import * as z from "zod";
import { trustMemoriesSchema } from "../release/acceptance.ts";
import { setsProfile } from "./activation.ts";
import { ERROR_CODES, ERROR_KINDS, type ErrorCode } from "../errors.ts";
import {
  ACTIVATION_MODES,
  releaseSchema,
  sha256Schema,
  type Release,
} from "../formats/manifest.ts";
import { storePathSchema } from "../formats/store-path.ts";

/**
 * The agent's state machine. States say what is about to be done and are on disk
 * before it is done; events are facts that happened. Nothing here touches the world.
 *
 *   Idle → Candidate → Fetching → Imported → Staged ─────────────→ Committing → Committed → Idle
 *             ↓           ↓          ↓        ↓   ↘                ↗   ↑             ↓
 *           Failed ←──────┴──────────┴────────┘    Activating → Verifying     (pending reboot)
 *             ↑                                         ↓           ↓   ↑            ↓
 *             └──────────── RolledBack ←──────────── RollingBack ←──┘   └──── the next boot
 *
 *   Idle → Reverting → Idle, where a person goes back by hand
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
  /** Units that had failed already: no fault of the new system. */
  failedUnits: z.array(z.string()),
  /** Units that systemd had restarted already: they are not judged by their restarts. */
  restartedUnits: z.array(z.string()),
});
export type Baseline = z.infer<typeof baselineSchema>;

/** Which boot a state belongs to; another one means that everything running was cut off. */
const bootIdSchema = z.string().max(100);

const withRelease = { release: releaseSchema };
const withAttempts = { ...withRelease, attempts: z.int().nonnegative() };
const withBaseline = {
  ...withAttempts,
  baseline: baselineSchema,
  bootId: bootIdSchema,
  /** How often an agent found this state left behind by another. */
  restarts: z.int().nonnegative(),
};

export const stateSchema = z.discriminatedUnion("name", [
  /** Nothing to do until a poll finds a release. */
  z.strictObject({ name: z.literal("Idle") }),
  /** A release was accepted for this host; nothing was done for it yet. */
  z.strictObject({ name: z.literal("Candidate"), ...withAttempts }),
  /** The missing NARs are being brought in and imported into the store. */
  z.strictObject({ name: z.literal("Fetching"), ...withAttempts }),
  /** The closure is valid in the store and held by a root. */
  z.strictObject({ name: z.literal("Imported"), ...withAttempts }),
  /** The way back is recorded and held; the deadline is being armed. */
  z.strictObject({ name: z.literal("Staged"), ...withBaseline }),
  /** switch-to-configuration proves the system without making it the boot default. */
  z.strictObject({ name: z.literal("Activating"), ...withBaseline }),
  /** The system runs and is being examined. */
  z.strictObject({
    name: z.literal("Verifying"),
    ...withBaseline,
    /** True where it was booted and is the boot default already. */
    afterBoot: z.boolean(),
  }),
  /** It is proven, or can only be proven by a boot: it becomes the boot default. */
  z.strictObject({ name: z.literal("Committing"), ...withBaseline, rebootNeeded: z.boolean() }),
  /** The release is what this host is; leftovers are being removed. */
  z.strictObject({ name: z.literal("Committed"), ...withBaseline }),
  /** The recorded system is being restored. */
  z.strictObject({
    name: z.literal("RollingBack"),
    ...withBaseline,
    reason: reasonSchema,
    /** Whether the system is to blame and not tried again. */
    deny: z.boolean(),
    rollbackAttempts: z.int().nonnegative(),
  }),
  /** The recorded system is back; leftovers are being removed. */
  z.strictObject({
    name: z.literal("RolledBack"),
    ...withBaseline,
    reason: reasonSchema,
    deny: z.boolean(),
  }),
  /** A person asked for an earlier generation; it is being made what this host is. */
  z.strictObject({
    name: z.literal("Reverting"),
    /** What the profile pointed at. */
    from: storePathSchema.nullable(),
    target: z.strictObject({ toplevel: storePathSchema, generation: z.int().positive() }),
    failures: z.int().nonnegative(),
  }),
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
  /** Absent for 0. */
  epoch: z.int().positive().optional(),
  sequence: z.int().positive(),
  digest: sha256Schema,
  toplevel: storePathSchema,
  mode: z.enum(ACTIVATION_MODES),
  at: timeSchema,
  /** What the profile pointed at before. */
  previous: storePathSchema.nullable(),
});

/** What only a reboot brings into full effect. */
const pendingRebootSchema = z.strictObject({
  release: releaseSchema,
  /** True where the reboot leaves this release, false where it is to become it. */
  wayBack: z.boolean(),
  /** The way back, should it not come up healthy. */
  baseline: baselineSchema,
  /** Attempts that failed before: a release that is cut off after every boot counts on. */
  attempts: z.int().nonnegative(),
  /** The boot in which it was asked for; any other one is the reboot. */
  bootId: bootIdSchema,
  /** Reboots that the agent itself asked for. */
  requested: z.int().nonnegative(),
});
export type PendingReboot = z.infer<typeof pendingRebootSchema>;

/** Everything that the agent remembers; one file, written whole. */
export const recordSchema = z.strictObject({
  formatVersion: z.literal(1),
  state: stateSchema,
  trust: trustMemoriesSchema,
  committed: committedSchema.nullable(),
  denied: z.array(deniedSchema),
  pendingReboot: pendingRebootSchema.nullable(),
  /** Whether the FleetLock server may still count this host as rebooting. */
  holdsRebootSlot: z.boolean(),
});
export type AgentRecord = z.infer<typeof recordSchema>;

export const EMPTY_RECORD: AgentRecord = {
  formatVersion: 1,
  state: { name: "Idle" },
  trust: [],
  committed: null,
  denied: [],
  pendingReboot: null,
  holdsRebootSlot: false,
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
  | { readonly type: "BaselineRecorded"; readonly baseline: Baseline; readonly bootId: string }
  /** Another agent found the state left behind and goes on with it. */
  | { readonly type: "AgentRestarted" }
  | { readonly type: "ActivationBegun" }
  | { readonly type: "ActivationSucceeded"; readonly message?: string }
  | { readonly type: "HealthConfirmed" }
  /** The system is to become the boot default; unproven where only a boot can prove it. */
  | { readonly type: "CommitBegun"; readonly rebootNeeded: boolean }
  /** `bootId` is the boot in which that happened. */
  | { readonly type: "BootDefaultSet"; readonly bootId: string }
  | { readonly type: "ActivationRejected"; readonly reason: Reason }
  /** Not the system's fault, as far as is known: it is undone and tried again. */
  | { readonly type: "ActivationInterrupted"; readonly reason: Reason }
  /** `rebootFrom` is this boot, where only another one makes the way back complete. */
  | { readonly type: "RollbackSucceeded"; readonly rebootFrom?: string }
  | { readonly type: "RollbackFailed"; readonly message: string }
  | {
      readonly type: "RevertBegun";
      readonly from: string | null;
      readonly target: StateOf<"Reverting">["target"];
      /** Why what is left is not followed any more. */
      readonly reason: Reason;
    }
  | { readonly type: "RevertSucceeded" }
  | { readonly type: "RevertFailed"; readonly message: string }
  | { readonly type: "AttemptFailed"; readonly reason: Reason; readonly retryAt: string }
  | { readonly type: "LeftoversRemoved"; readonly retryAt: string }
  | { readonly type: "RebootRequested" }
  | { readonly type: "RebootNoticed"; readonly bootId: string }
  | { readonly type: "RebootSlotTaken" }
  | { readonly type: "RebootSlotReleased" }
);
export type EventType = Event["type"];

const SLOT_EVENTS = ["RebootSlotTaken", "RebootSlotReleased"] as const;
/** While the host is untouched, another release or a person may always change the plan. */
const ABANDONING = ["ReleaseAccepted", "ReleaseWithdrawn", "AlreadyActive", "RevertBegun"] as const;
const BEFORE_THE_LINE = [...ABANDONING, "RebootNoticed", ...SLOT_EVENTS] as const;

/** Which events each state can meet; anything else is a defect. */
const EXPECTED = {
  Idle: ["RebootRequested", ...BEFORE_THE_LINE],
  Candidate: ["FetchBegun", "AttemptFailed", ...BEFORE_THE_LINE],
  Fetching: ["ClosureImported", "AttemptFailed", ...BEFORE_THE_LINE],
  Imported: ["BaselineRecorded", "AttemptFailed", ...BEFORE_THE_LINE],
  Staged: [
    "ActivationBegun",
    "CommitBegun",
    "AttemptFailed",
    "ActivationRejected",
    "AgentRestarted",
  ],
  Activating: [
    "ActivationSucceeded",
    "CommitBegun",
    "ActivationRejected",
    "ActivationInterrupted",
    // Nothing was done: another switch held the lock.
    "AttemptFailed",
    "AgentRestarted",
  ],
  Verifying: [
    "HealthConfirmed",
    "CommitBegun",
    "ActivationRejected",
    "ActivationInterrupted",
    "AgentRestarted",
  ],
  Committing: ["BootDefaultSet", "ActivationRejected", "ActivationInterrupted", "AgentRestarted"],
  Committed: ["LeftoversRemoved", "AgentRestarted"],
  // Where the way back is barred, the way on to another release may not be.
  RollingBack: ["RollbackSucceeded", "RollbackFailed", "AgentRestarted", "ReleaseAccepted"],
  Reverting: ["RevertSucceeded", "RevertFailed", "RevertBegun", "ReleaseAccepted"],
  RolledBack: ["LeftoversRemoved", "AgentRestarted"],
  Failed: ["RebootRequested", ...BEFORE_THE_LINE],
} as const satisfies Record<StateName, readonly EventType[]>;

/** Whether an event may happen in a state. */
export function isExpected(state: StateName, event: EventType): boolean {
  return (EXPECTED[state] as readonly EventType[]).includes(event);
}

/**
 * The record after an event. Throws for an event that the state cannot meet: going on
 * from a state that was misunderstood could harm a host.
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
        committed: committedOf(event.release, event.at, event.previous),
        pendingReboot: stillPending(record.pendingReboot, event.release),
      };
    case "FetchBegun":
      return { ...record, state: { ...attempted(state), name: "Fetching" } };
    case "ClosureImported":
      return { ...record, state: { ...attempted(state), name: "Imported" } };
    case "BaselineRecorded":
      return {
        ...record,
        state: {
          ...attempted(state),
          name: "Staged",
          baseline: event.baseline,
          bootId: event.bootId,
          restarts: 0,
        },
      };
    case "AgentRestarted": {
      const from = state as StateOf<"Staged">;
      return { ...record, state: { ...from, restarts: from.restarts + 1 } };
    }
    case "ActivationBegun":
      return { ...record, state: { ...prepared(state), name: "Activating" } };
    case "ActivationSucceeded":
      return { ...record, state: { ...prepared(state), name: "Verifying", afterBoot: false } };
    case "CommitBegun":
      return {
        ...record,
        state: { ...prepared(state), name: "Committing", rebootNeeded: event.rebootNeeded },
      };
    case "HealthConfirmed":
      return commit(record, prepared(state), event.at);
    case "BootDefaultSet": {
      const from = prepared(state);
      const { rebootNeeded } = state as StateOf<"Committing">;
      const pending = pendingRebootOf(from, { bootId: event.bootId, wayBack: false });
      return {
        ...commit(record, from, event.at),
        pendingReboot: rebootNeeded ? pending : null,
      };
    }
    case "ActivationRejected":
      return rollBack(record, event.reason, true, event.at);
    case "ActivationInterrupted":
      return rollBack(record, event.reason, false, event.at);
    case "RollbackFailed": {
      const from = state as StateOf<"RollingBack">;
      return { ...record, state: { ...from, rollbackAttempts: from.rollbackAttempts + 1 } };
    }
    case "RollbackSucceeded": {
      const { reason, deny } = state as StateOf<"RollingBack">;
      const { rebootFrom: bootId } = event;
      const from = prepared(state);
      return {
        ...record,
        state: { ...from, name: "RolledBack", reason, deny },
        pendingReboot:
          bootId === undefined
            ? record.pendingReboot
            : pendingRebootOf(from, { bootId, wayBack: true }),
      };
    }
    case "RevertBegun": {
      const { from, target } = event;
      const left = record.committed?.toplevel === from ? record.committed : null;
      return {
        ...record,
        state: { name: "Reverting", from, target, failures: 0 },
        committed: left ? null : record.committed,
        pendingReboot: null,
        denied: left ? deny(record.denied, left, event) : record.denied,
      };
    }
    case "RevertSucceeded":
      return { ...record, state: { name: "Idle" } };
    case "RevertFailed": {
      const from = state as StateOf<"Reverting">;
      return { ...record, state: { ...from, failures: from.failures + 1 } };
    }
    case "LeftoversRemoved": {
      if (state.name !== "RolledBack" || state.deny) return { ...record, state: { name: "Idle" } };
      const { release, attempts } = state;
      return {
        ...record,
        state: {
          name: "Failed",
          release,
          attempts: attempts + 1,
          reason: state.reason,
          retryAt: event.retryAt,
        },
      };
    }
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
    case "RebootRequested":
      return record.pendingReboot === null
        ? record
        : {
            ...record,
            pendingReboot: {
              ...record.pendingReboot,
              requested: record.pendingReboot.requested + 1,
            },
          };
    case "RebootNoticed": {
      const pending = record.pendingReboot;
      if (pending === null) return record;
      if (pending.wayBack) return { ...record, pendingReboot: null };
      return {
        ...record,
        pendingReboot: null,
        state: {
          name: "Verifying",
          release: pending.release,
          attempts: pending.attempts,
          baseline: pending.baseline,
          bootId: event.bootId,
          restarts: 0,
          afterBoot: true,
        },
      };
    }
    case "RebootSlotTaken":
      return { ...record, holdsRebootSlot: true };
    case "RebootSlotReleased":
      return { ...record, holdsRebootSlot: false };
    default:
      return event satisfies never;
  }
}

interface Attempted {
  release: Release;
  attempts: number;
}

interface Prepared extends Attempted {
  baseline: Baseline;
  bootId: string;
  restarts: number;
}

function attempted(state: State): Attempted {
  const { release, attempts } = state as StateOf<"Candidate">;
  return { release, attempts };
}

function prepared(state: State): Prepared {
  const { baseline, bootId, restarts } = state as StateOf<"Staged">;
  return { ...attempted(state), baseline, bootId, restarts };
}

function pendingRebootOf(
  { release, baseline, attempts }: Prepared,
  reboot: Pick<PendingReboot, "bootId" | "wayBack">,
): PendingReboot {
  return { release, baseline, attempts, requested: 0, ...reboot };
}

function commit(record: AgentRecord, from: Prepared, at: string): AgentRecord {
  return {
    ...record,
    state: { ...from, name: "Committed" },
    committed: committedOf(from.release, at, from.baseline.profile),
    // What leaves the boot default alone leaves the reboot that waits for it, too.
    pendingReboot: setsProfile(from.release.mode) ? null : record.pendingReboot,
    // It failed here once and now did not: what a person insisted on is no longer denied.
    denied: record.denied.filter(({ toplevel }) => toplevel !== from.release.toplevel),
  };
}

/**
 * The pending reboot once a release is active: the same system, released again, still waits
 * for it, by its new name; another system does not.
 */
function stillPending(pending: PendingReboot | null, active: Release): PendingReboot | null {
  if (pending?.release.toplevel !== active.toplevel) return null;
  // How it became the boot default says how to go back, whatever mode it is released for now.
  return { ...pending, release: { ...active, mode: pending.release.mode } };
}

function rollBack(
  record: AgentRecord,
  reason: Reason,
  isToBlame: boolean,
  at: string,
): AgentRecord {
  const from = prepared(record.state);
  const wasCommitted = record.committed?.toplevel === from.release.toplevel;
  return {
    ...record,
    state: { ...from, name: "RollingBack", reason, deny: isToBlame, rollbackAttempts: 0 },
    // A release that was committed and then did not survive its boot is not what this host is.
    committed: wasCommitted ? null : record.committed,
    denied: isToBlame ? deny(record.denied, from.release, { reason, at }) : record.denied,
  };
}

function committedOf(
  release: Release,
  at: string,
  previous: string | null,
): NonNullable<AgentRecord["committed"]> {
  const { channel, epoch, sequence, digest, toplevel, mode } = release;
  return {
    channel,
    ...(epoch !== undefined && { epoch }),
    ...{ sequence, digest, toplevel, mode, at, previous },
  };
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
    case "Committing":
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

/** `open` is a system that waited for its boot and was not judged yet. */
export type BootVerdict = "open" | "proven" | "rejected";

/** What is known of the system that was booted; one that waited for nothing is proven. */
export function judgeBoot({ state, pendingReboot }: AgentRecord, bootId: string): BootVerdict {
  if (state.name === "Verifying" && state.afterBoot) return "open";
  if (state.name === "RollingBack" || state.name === "RolledBack") return "rejected";
  if (pendingReboot === null) return "proven";
  if (pendingReboot.wayBack) return pendingReboot.bootId === bootId ? "rejected" : "proven";
  return pendingReboot.bootId === bootId ? "proven" : "open";
}

/** Whether what failed with this code may succeed later with nothing changed by a person. */
export function isTransient(code: ErrorCode): boolean {
  return ERROR_KINDS[code].transient;
}

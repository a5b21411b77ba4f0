import * as z from "zod";
import {
  ACTIVATION_MODES,
  releaseSchema,
  type Release,
  specialisationSchema,
  sha256Schema,
} from "../formats/manifest.ts";
import { openEnum, unknownKeys } from "../formats/compatibility.ts";
import { storePathSchema } from "../formats/store-path.ts";
import { trustMemoriesSchema } from "../release/acceptance.ts";
import { provingMode } from "./activation.ts";
import {
  baselineSchema,
  bootIdSchema,
  reasonSchema,
  revertingSchema,
  rollingBackSchema,
  stateSchema,
  type State,
  timeSchema,
  undoneSchema,
} from "./states.ts";

/** A system that failed here. The host does not try it again. */
const deniedSchema = z.strictObject({
  toplevel: storePathSchema,
  sequence: z.int().positive(),
  digest: sha256Schema,
  reason: reasonSchema,
  at: timeSchema,
  /** How it was activated when it failed; absent if it is denied however it is activated. */
  mode: openEnum(ACTIVATION_MODES).optional(),
  /**
   * The specialisation that was activated, null for the system itself; absent if it is denied with
   * whichever of them, as after a boot, which all of them would take.
   */
  specialisation: specialisationSchema.nullable().optional(),
});
export type Denial = z.infer<typeof deniedSchema>;

/** The release that this host switched to last. */
const committedSchema = z.strictObject({
  channel: releaseSchema.shape.channel,
  /** Absent for 0. */
  epoch: z.int().positive().optional(),
  sequence: z.int().positive(),
  digest: sha256Schema,
  toplevel: storePathSchema,
  mode: openEnum(ACTIVATION_MODES),
  /** The specialisation that was activated; absent for the system itself. */
  specialisation: specialisationSchema.optional(),
  at: timeSchema,
  /** What the profile pointed at before. */
  previous: storePathSchema.nullable(),
  /** Where its closure is on the mirrors, to repair it from; absent if that is not known. */
  closureSize: releaseSchema.shape.closureSize.optional(),
  archive: releaseSchema.shape.archive.optional(),
});
export type Committed = z.infer<typeof committedSchema>;

/** What takes full effect only with a reboot. */
const pendingRebootSchema = z.strictObject({
  release: releaseSchema,
  /** True if the reboot leads back from this release, false if it leads to it. */
  wayBack: z.boolean(),
  /** What to go back to if the release does not come up healthy. */
  baseline: baselineSchema,
  /** Attempts that failed before: a release that is cut off after every boot counts on. */
  attempts: z.int().nonnegative(),
  undone: undoneSchema,
  /** The boot in which the reboot became necessary. Any other boot is that reboot. */
  bootId: bootIdSchema,
  /** True if the boot is a trial: every later one starts the recorded system again. */
  trial: z.boolean().optional(),
  /** Why it takes a boot, if the kernel is not the reason. */
  why: z.string().optional(),
  /** Reboots that the agent itself asked for. */
  requested: z.int().nonnegative(),
});
export type PendingReboot = z.infer<typeof pendingRebootSchema>;

/** The keys that some state has, or the reboot that an update waits for. */
const UPDATE_KEYS: ReadonlySet<string> = new Set(
  [...stateSchema.options, pendingRebootSchema].flatMap(({ shape }) => Object.keys(shape)),
);

/** What another version of nixos-pull recorded of an update: it goes with the update to its end. */
export function unknownOfUpdate(update: State | PendingReboot): object {
  return unknownKeys(update, UPDATE_KEYS);
}

/** What failed in a system's activation script when that ran last. */
const failingSnippetsSchema = z.strictObject({
  toplevel: storePathSchema,
  snippets: z.array(z.string()),
});
export type FailingSnippets = z.infer<typeof failingSnippetsSchema>;

/** Everything that the agent remembers: one file, always written whole. */
export const recordSchema = z.strictObject({
  /** A later version's record is read as far as it is known. */
  formatVersion: z.int().positive(),
  state: stateSchema,
  trust: trustMemoriesSchema,
  committed: committedSchema.nullable(),
  /** Releases that the host switched to before, the newest last; absent for none. */
  earlier: z.array(committedSchema).optional(),
  denied: z.array(deniedSchema),
  pendingReboot: pendingRebootSchema.nullable(),
  /** Whether the FleetLock server may still count this host as rebooting. */
  holdsRebootSlot: z.boolean(),
  /** Whether the hook preReboot ran, and postBoot did not yet. */
  preparedReboot: z.boolean().optional(),
  /** Snippets of activation scripts that failed, by the system that they belong to. */
  failingSnippets: z.array(failingSnippetsSchema).optional(),
  /** A way back that failed so often that another release was tried; it still leads back. */
  unfinishedWayBack: rollingBackSchema.optional(),
  /** A rollback by hand that failed so often that another release was tried. */
  unfinishedRevert: revertingSchema.optional(),
});
export type AgentRecord = z.infer<typeof recordSchema>;

/** The record as it lies on disk. */
export const savedRecordSchema = recordSchema.extend({
  /** How often it was written: a copy that was written less often is out of date. */
  writes: z.int().positive().optional(),
  /** Hashed identity of the machine that wrote it; absent if it has none. */
  machineId: sha256Schema.optional(),
});
export type SavedRecord = z.infer<typeof savedRecordSchema>;

/** The record of a host on which no agent ran before. */
export const EMPTY_RECORD: AgentRecord = {
  formatVersion: 1,
  state: { name: "Idle" },
  trust: [],
  committed: null,
  denied: [],
  pendingReboot: null,
  holdsRebootSlot: false,
};

/** Whether the next boot tries a release, and is no way back. */
export function isTrial({ trial = false, wayBack }: PendingReboot): boolean {
  return trial && !wayBack;
}

/** Only this many denials are kept: a system that failed 100 failures ago is long gone. */
const MAX_DENIED = 100;

/** What is activated: a system, or one of its specialisations. */
export type Activated = Pick<Committed, "toplevel" | "specialisation">;

/** The denials with one more, which replaces earlier ones that say no more than it. */
export function withDenial(denied: readonly Denial[], denial: Denial): Denial[] {
  const { toplevel, sequence, digest, reason, at, mode, specialisation } = denial;
  const isReplaced = (entry: Denial): boolean =>
    entry.toplevel === toplevel &&
    isAlike(entry.mode, mode) &&
    (specialisation === undefined || entry.specialisation === specialisation);
  return [
    ...denied.filter((entry) => !isReplaced(entry)),
    {
      ...{ toplevel, sequence, digest, reason, at },
      ...(mode !== undefined && { mode }),
      ...(specialisation !== undefined && { specialisation }),
    },
  ].slice(-MAX_DENIED);
}

/** Whether a denial speaks against a system, or against that specialisation of it. */
export function speaksAgainst(denial: Denial, { toplevel, specialisation }: Activated): boolean {
  return (
    denial.toplevel === toplevel &&
    (denial.specialisation === undefined || denial.specialisation === (specialisation ?? null))
  );
}

/**
 * The denial of what is activated on this host, if there is one; with a mode, only one that speaks
 * against that mode: what fails when it is switched to may come up well from a boot.
 */
export function denialOf(
  record: AgentRecord,
  activated: Activated,
  mode?: Release["mode"],
): Denial | undefined {
  return record.denied.find(
    (entry) => speaksAgainst(entry, activated) && (mode === undefined || isAlike(entry.mode, mode)),
  );
}

/** Whether two releases ask a host for the same: one system or specialisation, activated alike. */
export function isSameSystem(
  one: Activated & Pick<Committed, "mode">,
  other: Activated & Pick<Committed, "mode">,
): boolean {
  return isSameActivated(one, other) && one.mode === other.mode;
}

/** Whether two are the same system or specialisation. */
export function isSameActivated(one: Activated, other: Activated): boolean {
  return one.toplevel === other.toplevel && one.specialisation === other.specialisation;
}

/** Whether two modes activate alike, or either is any mode. */
function isAlike(one: Release["mode"] | undefined, other: Release["mode"] | undefined): boolean {
  return one === undefined || other === undefined || provingMode(one) === provingMode(other);
}

/** Only this many earlier releases are remembered: those that somebody may go back to. */
const MAX_EARLIER = 8;

/** The record of a host that leaves its release, which is remembered. */
export function withoutCommitted(record: AgentRecord): AgentRecord {
  const { committed, earlier = [] } = record;
  if (committed === null) return record;
  const others = earlier.filter(({ toplevel }) => toplevel !== committed.toplevel);
  return { ...record, committed: null, earlier: [...others, committed].slice(-MAX_EARLIER) };
}

/** The record of a host that is a release now; the one that it was before is remembered. */
export function withCommitted(record: AgentRecord, committed: Committed): AgentRecord {
  const { earlier = [], ...rest } = withoutCommitted(record);
  const others = earlier.filter(({ toplevel }) => toplevel !== committed.toplevel);
  return { ...rest, committed, ...(others.length > 0 && { earlier: others }) };
}

/** The record of a host that went back to a system, and so is the release that brought it. */
export function backAt(record: AgentRecord, toplevel: string | null): AgentRecord {
  const before = record.earlier?.find((it) => it.toplevel === toplevel);
  return record.committed === null && before ? withCommitted(record, before) : record;
}

/** The snippets that are known to fail in a system. */
export function snippetsOf(record: AgentRecord, toplevel: string | null): readonly string[] {
  return record.failingSnippets?.find((entry) => entry.toplevel === toplevel)?.snippets ?? [];
}

/** This many systems' snippets are remembered: the running one's, and those around it. */
const MAX_SNIPPETS = 8;

/** The record once a system was activated, with what failed in its activation script. */
export function withSnippets(record: AgentRecord, activated?: FailingSnippets): AgentRecord {
  if (!activated) return record;
  const { failingSnippets = [], ...rest } = record;
  const others = failingSnippets.filter(({ toplevel }) => toplevel !== activated.toplevel);
  const all = [...others, ...(activated.snippets.length > 0 ? [activated] : [])];
  return { ...rest, ...(all.length > 0 && { failingSnippets: all.slice(-MAX_SNIPPETS) }) };
}

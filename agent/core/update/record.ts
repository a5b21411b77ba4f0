import * as z from "zod";
import { ACTIVATION_MODES, releaseSchema, sha256Schema } from "../formats/manifest.ts";
import { storePathSchema } from "../formats/store-path.ts";
import { trustMemoriesSchema } from "../release/acceptance.ts";
import { baselineSchema, bootIdSchema, reasonSchema, stateSchema, timeSchema } from "./states.ts";

/** A system that failed here. The host does not try it again. */
const deniedSchema = z.strictObject({
  toplevel: storePathSchema,
  sequence: z.int().positive(),
  digest: sha256Schema,
  reason: reasonSchema,
  at: timeSchema,
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
  mode: z.enum(ACTIVATION_MODES),
  at: timeSchema,
  /** What the profile pointed at before. */
  previous: storePathSchema.nullable(),
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
  /** The boot in which the reboot became necessary. Any other boot is that reboot. */
  bootId: bootIdSchema,
  /** Reboots that the agent itself asked for. */
  requested: z.int().nonnegative(),
});
export type PendingReboot = z.infer<typeof pendingRebootSchema>;

/** Everything that the agent remembers: one file, always written whole. */
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

/** Only this many denials are kept: a system that failed 100 failures ago is long gone. */
const MAX_DENIED = 100;

/** The denials with one more, which replaces an earlier one of the same system. */
export function withDenial(denied: readonly Denial[], denial: Denial): Denial[] {
  const { toplevel, sequence, digest, reason, at } = denial;
  return [
    ...denied.filter((entry) => entry.toplevel !== toplevel),
    { toplevel, sequence, digest, reason, at },
  ].slice(-MAX_DENIED);
}

/** The denial of a system on this host, if there is one. */
export function denialOf(record: AgentRecord, toplevel: string): Denial | undefined {
  return record.denied.find((entry) => entry.toplevel === toplevel);
}

import * as z from "zod";
import {
  channelSchema,
  hostnameSchema,
  sha256Schema,
  specialisationSchema,
} from "../../core/formats/manifest.ts";
import { storePathSchema } from "../../core/formats/store-path.ts";
import { holdReadSchema } from "../../core/schedule/hold.ts";
import { driftSchema } from "../../core/update/drift.ts";
import { recordSchema } from "../../core/update/record.ts";
import { reasonSchema } from "../../core/update/states.ts";
import { historyEntrySchema } from "../../core/update/history-entry.ts";
import { activitySchema } from "./activity.ts";
import { pollReportSchema } from "../poll/poll-report.ts";
import { switchEntrySchema, wayBackSchema } from "./last-switch.ts";
import type { HostStatus } from "./host-status.ts";

/** What a host's boot loader is, and what it can do. */
export const bootLoaderSchema = z.strictObject({
  name: z.string().nullable().describe("null if it is not known"),
  cannotTry: z.string().nullable().describe("why it cannot start a system once; null if it can"),
});

/** The setting that says who makes a reboot that is needed. */
export const rebootPolicySchema = z.enum(["never", "window", "now"]).describe("`reboot.policy`");

/** What `status --json` prints, and the status socket gives. */
export const statusSchema = z.strictObject({
  hostname: hostnameSchema,
  channel: channelSchema,
  machineId: sha256Schema.nullable().describe("this machine's hashed identity"),
  profile: storePathSchema.nullable().describe("what the system profile points at"),
  generation: z.int().positive().nullable(),
  running: storePathSchema
    .nullable()
    .describe("the system that runs, if a specialisation of it runs too"),
  specialisation: specialisationSchema.nullable().describe("the specialisation of it that runs"),
  booted: storePathSchema.nullable(),
  ...recordSchema.omit({ formatVersion: true }).shape,
  alarms: z.array(reasonSchema),
  hold: holdReadSchema,
  drift: driftSchema.nullable(),
  lastSwitches: z
    .array(switchEntrySchema)
    .describe("events of the last attempt in which a switch printed something, oldest first"),
  wayBack: wayBackSchema
    .nullable()
    .describe("what the last way back did not restore, or why it failed"),
  bootLoader: bootLoaderSchema,
  rebootPolicy: rebootPolicySchema,
  activity: activitySchema,
  lastPoll: pollReportSchema.nullable(),
  lastImport: historyEntrySchema
    .pick({ at: true, sequence: true, toplevel: true, deltas: true })
    .nullable()
    .describe("the closure that was imported last"),
});

/** The status as machines read it. */
export function statusJson(status: HostStatus): z.infer<typeof statusSchema> {
  const { record, host, alarms, ...rest } = status;
  const { formatVersion: _, ...remembered } = record;
  const { profile, generation, running, specialisation = null, booted = null } = host;
  return {
    ...rest,
    ...{ profile, generation, running, specialisation, booted },
    ...remembered,
    lastSwitches: [...rest.lastSwitches],
    alarms: [...alarms],
  };
}

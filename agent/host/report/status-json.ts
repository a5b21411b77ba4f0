import * as z from "zod";
import {
  channelSchema,
  hostnameSchema,
  releaseSchema,
  sha256Schema,
} from "../../core/formats/manifest.ts";
import { storePathSchema } from "../../core/formats/store-path.ts";
import { holdReadSchema } from "../../core/schedule/hold.ts";
import { waitSchema } from "../../core/schedule/waiting.ts";
import { driftSchema } from "../../core/update/drift.ts";
import { recordSchema } from "../../core/update/record.ts";
import { reasonSchema } from "../../core/update/states.ts";
import { historyEntrySchema } from "../../core/update/history-entry.ts";
import { archiveVerdictSchema, type PollReport } from "../poll/poll-report.ts";
import { verdictSchema } from "../poll/poll.ts";
import type { HostStatus } from "./host-status.ts";

/** The last poll, with the names that `check --json` has for what it finds. */
const lastPollSchema = z.strictObject({
  at: z.iso.datetime(),
  decision: z.string().nullable().describe("as `check` has it, or `applied`"),
  error: reasonSchema.nullable(),
  release: z
    .strictObject({
      sequence: releaseSchema.shape.sequence,
      digest: releaseSchema.shape.digest.optional(),
      toplevel: releaseSchema.shape.toplevel.optional(),
      mode: releaseSchema.shape.mode.optional(),
    })
    .nullable()
    .describe("only its number, unless it waits"),
  waits: z.array(waitSchema),
  mirrors: z.array(verdictSchema),
  archives: z.array(archiveVerdictSchema).describe("how each mirror last served an archive"),
});

/** What `status --json` prints, and the status socket gives. */
export const statusSchema = z.strictObject({
  hostname: hostnameSchema,
  channel: channelSchema,
  machineId: sha256Schema.nullable().describe("this machine's hashed identity"),
  profile: storePathSchema.nullable().describe("what the system profile points at"),
  generation: z.int().positive().nullable(),
  running: storePathSchema.nullable(),
  booted: storePathSchema.nullable(),
  ...recordSchema.omit({ formatVersion: true }).shape,
  alarms: z.array(reasonSchema),
  hold: holdReadSchema,
  drift: driftSchema.nullable(),
  lastPoll: lastPollSchema.nullable(),
  lastImport: historyEntrySchema
    .pick({ at: true, sequence: true, toplevel: true, deltas: true })
    .nullable()
    .describe("the closure that was imported last"),
});

/** The status as machines read it. */
export function statusJson(status: HostStatus): z.infer<typeof statusSchema> {
  const { record, host, lastPoll, alarms, ...rest } = status;
  const { formatVersion: _, ...remembered } = record;
  const { profile, generation, running, booted = null } = host;
  return {
    ...rest,
    ...{ profile, generation, running, booted },
    ...remembered,
    alarms: [...alarms],
    lastPoll: lastPoll && lastPollJson(lastPoll),
  };
}

function lastPollJson(poll: PollReport): z.infer<typeof lastPollSchema> {
  const { at, decision, code, message, sequence, waiting, verdicts, archives = [] } = poll;
  return {
    at,
    decision,
    error: code === null ? null : { code, message: message ?? "" },
    release: waiting?.release ?? (sequence === null ? null : { sequence }),
    waits: waiting?.waits ?? [],
    mirrors: verdicts,
    archives,
  };
}

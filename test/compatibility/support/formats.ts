import * as z from "zod";
import { archiveIndexSchema } from "../../../agent/core/formats/index-schema.ts";
import { manifestSchema } from "../../../agent/core/formats/manifest.ts";
import { pendingReportSchema } from "../../../agent/core/formats/pending-report.ts";
import { sha256Hex } from "../../../agent/core/formats/sha256.ts";
import { reportSchema } from "../../../agent/core/formats/report.ts";
import { stickContentsSchema } from "../../../agent/core/formats/stick-contents.ts";
import { countersSchema } from "../../../agent/core/metrics/counters.ts";
import { signerMemorySchema } from "../../../agent/core/release/signer-memory.ts";
import { confirmationSchema } from "../../../agent/core/schedule/confirmation.ts";
import { holdSchema } from "../../../agent/core/schedule/hold.ts";
import { historyEntrySchema } from "../../../agent/core/update/history-entry.ts";
import { savedRecordSchema } from "../../../agent/core/update/record.ts";
import { pollReportSchema } from "../../../agent/host/poll/poll-report.ts";

/** Every format that another version reads: a hash of its JSON schema. */
export function formats(): Record<string, string> {
  const all: Record<string, z.ZodType> = {
    ...{ manifest: manifestSchema, index: archiveIndexSchema, report: reportSchema },
    ...{ record: savedRecordSchema, history: historyEntrySchema, poll: pollReportSchema },
    ...{ hold: holdSchema, confirmation: confirmationSchema, counters: countersSchema },
    ...{ pendingReport: pendingReportSchema, stick: stickContentsSchema },
    signerMemory: signerMemorySchema,
  };
  return Object.fromEntries(
    Object.entries(all).map(([name, schema]) => [
      name,
      sha256Hex(JSON.stringify(z.toJSONSchema(schema, { unrepresentable: "any", io: "input" }))),
    ]),
  );
}

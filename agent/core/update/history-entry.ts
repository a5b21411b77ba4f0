import * as z from "zod";
import { trustMemorySchema } from "../release/acceptance.ts";

/** One line of `history.jsonl`: something that happened to this host. */
export const historyEntrySchema = z.strictObject({
  at: z.iso.datetime(),
  /** The event's name, such as `HealthConfirmed`. */
  event: z.string(),
  /** The state that it led to. */
  state: z.string(),
  sequence: z.int().positive().optional(),
  toplevel: z.string().optional(),
  mode: z.string().optional(),
  code: z.string().optional(),
  message: z.string().optional(),
  /** Which write of the record came before it: an older copy of the record is out of date. */
  writes: z.int().positive().optional(),
  /** The last lines that switch-to-configuration, or a health check that failed, printed. */
  lastLines: z.array(z.string()).optional(),
  /** How many paths were made by deltas, and how many deltas were of no use. */
  deltas: z.strictObject({ used: z.int().nonnegative(), failed: z.int().nonnegative() }).optional(),
  /** What was accepted, so that losing the state files does not lose it. */
  trust: trustMemorySchema.optional(),
});
export type HistoryEntry = z.infer<typeof historyEntrySchema>;

import * as z from "zod";
import { openEnum } from "./compatibility.ts";
import type { Settings } from "../settings.ts";

/** The places where a host may have to leave its report. */
export const REPORT_TARGETS = ["directory", "url"] as const;
export type ReportTarget = (typeof REPORT_TARGETS)[number];

/** Those that the settings name. */
export function reportTargets({ reports }: Pick<Settings, "reports">): ReportTarget[] {
  return REPORT_TARGETS.filter((target) => reports[target] !== undefined);
}

/** A report that did not get everywhere yet. */
export const pendingReportSchema = z.strictObject({
  /** As it was signed; it is delivered like that, or replaced by a newer one. */
  envelope: z.string(),
  /** Where it has to go still. */
  targets: z.array(
    z.strictObject({
      target: openEnum(REPORT_TARGETS),
      /** How often in a row it failed there, earlier reports included. */
      failures: z.int().nonnegative(),
      /** No earlier than this it is tried again. */
      retryAt: z.iso.datetime(),
    }),
  ),
});
export type PendingReport = z.infer<typeof pendingReportSchema>;

import { rm } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { readChecked, writeChecked } from "../files/checked-file.ts";
import { REPORT_TARGETS } from "../report/report-outbox.ts";

const FILE = "report.pending.json";

/** A report that did not get everywhere yet. */
const pendingReportSchema = z.strictObject({
  /** As it was signed; it is delivered like that, or replaced by a newer one. */
  envelope: z.string(),
  /** Where it has to go still. */
  targets: z.array(
    z.strictObject({
      target: z.enum(REPORT_TARGETS),
      /** How often in a row it failed there, earlier reports included. */
      failures: z.int().nonnegative(),
      /** No earlier than this it is tried again. */
      retryAt: z.iso.datetime(),
    }),
  ),
});
export type PendingReport = z.infer<typeof pendingReportSchema>;

/**
 * Keeps the newest report on disk for as long as somebody has not taken it. Older ones say
 * nothing that it does not say, so there is never more than one.
 */
export class ReportSpool {
  readonly #path: string;

  constructor(stateDirectory: string) {
    this.#path = join(stateDirectory, FILE);
  }

  /** What has to be delivered still; a damaged file is as good as none. */
  async read(): Promise<PendingReport | null> {
    const found = await readChecked(this.#path, pendingReportSchema);
    return found.kind === "read" ? found.value : null;
  }

  /** Replaces it; one that got everywhere is removed. */
  async write(pending: PendingReport): Promise<void> {
    if (pending.targets.length > 0) await writeChecked(this.#path, pending);
    else await rm(this.#path, { force: true });
  }
}

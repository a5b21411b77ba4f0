import { rm } from "node:fs/promises";
import { join } from "node:path";
import { pendingReportSchema, type PendingReport } from "../../core/formats/pending-report.ts";
import type { ReportSpool } from "../../core/ports.ts";
import { readChecked, writeChecked } from "../files/checked-file.ts";

const FILE = "report.pending.json";

/**
 * Keeps the newest report on disk until it is delivered everywhere. It replaces older ones, so
 * there is never more than one.
 */
export class ReportSpoolFile implements ReportSpool {
  readonly #path: string;

  constructor(stateDirectory: string) {
    this.#path = join(stateDirectory, FILE);
  }

  /** The report that is not delivered everywhere yet, or null, also if the file is damaged. */
  async read(): Promise<PendingReport | null> {
    const found = await readChecked(this.#path, pendingReportSchema);
    return found.kind === "read" ? found.value : null;
  }

  /** Replaces the report, and removes it if it was delivered everywhere. */
  async write(pending: PendingReport): Promise<void> {
    if (pending.targets.length > 0) await writeChecked(this.#path, pending);
    else await rm(this.#path, { force: true });
  }
}

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { pendingReportSchema, type PendingReport } from "../../core/formats/pending-report.ts";
import type { ReportSpool } from "../../core/ports.ts";
import { readChecked, writeChecked } from "../files/checked-file.ts";

const FILE = "report.pending.json";

/**
 * Keeps the newest report on disk for as long as somebody has not taken it. Older ones say
 * nothing that it does not say, so there is never more than one.
 */
export class ReportSpoolFile implements ReportSpool {
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

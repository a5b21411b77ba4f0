import { mkdir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { CLOCK_TOLERANCE_MS } from "../../core/release/acceptance.ts";
import { parseEnvelope } from "../../core/formats/envelope.ts";
import { PullError, toPullError } from "../../core/errors.ts";
import {
  MAX_REPORT_BYTES,
  REPORT_PAYLOAD_TYPE,
  openReport,
  parseReport,
  type Report,
} from "../../core/formats/report.ts";
import type { HostKeys } from "../../core/fleet/report-trust.ts";
import { writeDurably } from "../../effects/files/durable-file.ts";
import { isNotFound } from "../../effects/files/missing-file.ts";
import { readRegularFile } from "../../effects/files/regular-file.ts";

/** Where reports lie on a mirror or stick. */
export const REPORTS_DIRECTORY = "reports";

/** A report with its envelope. */
export interface ReadReport {
  readonly report: Report;
  readonly bytes: Buffer;
}

/**
 * Reads a report that is signed by a key of the host that it names. If `keys` is null, signatures
 * are not checked: that is for those who only carry it. Throws SIGNATURE_THRESHOLD,
 * ENVELOPE_INVALID, PAYLOAD_TYPE_WRONG, REPORT_INVALID, USAGE.
 */
export async function readReport(path: string, keys: HostKeys | null): Promise<ReadReport> {
  const bytes = await readReportFile(path);
  const claimed = claimedReport(bytes);
  if (keys === null) return { report: claimed, bytes };
  let failure: unknown = new PullError(
    "SIGNATURE_THRESHOLD",
    `${path}: expected a key of ${claimed.hostname} among the hosts' keys, found none`,
  );
  for (const key of keys.get(claimed.hostname) ?? []) {
    try {
      return { report: openReport(bytes, key), bytes };
    } catch (thrown) {
      failure = thrown;
    }
  }
  throw failure;
}

/** What a report says, whoever signed it. */
function claimedReport(bytes: Uint8Array): Report {
  const envelope = parseEnvelope(bytes);
  if (envelope.payloadType !== REPORT_PAYLOAD_TYPE) {
    throw new PullError(
      "PAYLOAD_TYPE_WRONG",
      `expected a report, found ${JSON.stringify(envelope.payloadType)}`,
    );
  }
  return parseReport(Buffer.from(envelope.payload, "base64"));
}

async function readReportFile(path: string): Promise<Buffer> {
  const options = { code: "REPORT_INVALID", maxBytes: MAX_REPORT_BYTES } as const;
  return readRegularFile(path, options).catch((cause: unknown) => {
    if (!isNotFound(cause)) throw cause;
    throw new PullError("USAGE", `${path}: expected a report, found no file`, { cause });
  });
}

/** The reports in a file, or in a directory such as a mirror's `reports`. */
export async function reportFiles(path: string): Promise<string[]> {
  const found = await stat(path).catch((cause: unknown) => {
    if (!isNotFound(cause)) throw cause;
    throw new PullError("USAGE", `${path}: expected a report or a directory of them`, { cause });
  });
  if (!found.isDirectory()) return [path];
  const names = (await readdir(path)).filter((name) => name.endsWith(".json")).sort();
  return names.map((name) => join(path, name));
}

/** What became of the reports on a stick. */
export interface BroughtReports {
  /** Hosts whose newer report was copied. */
  readonly brought: readonly string[];
  /** Hosts whose report in the destination is as new or newer. */
  readonly known: readonly string[];
  readonly refused: readonly {
    readonly file: string;
    readonly code: string;
    readonly message: string;
  }[];
}

/** Copies reports from a stick's directory to a mirror's. Only a newer report replaces an older one. */
export async function bringReports(
  source: string,
  destination: string,
  { keys, now, dryRun }: { keys: HostKeys | null; now: Date; dryRun: boolean },
): Promise<BroughtReports> {
  const brought: string[] = [];
  const known: string[] = [];
  const refused: { file: string; code: string; message: string }[] = [];
  const from = join(source, REPORTS_DIRECTORY);
  const into = join(destination, REPORTS_DIRECTORY);
  const files = await reportFiles(from).catch((thrown: unknown) => {
    if (toPullError(thrown).code === "USAGE") return [];
    throw thrown;
  });
  for (const file of files) {
    try {
      const { report, bytes } = await readReport(file, keys);
      const { hostname } = report;
      if (join(from, `${hostname}.json`) !== file) {
        throw new PullError(
          "REPORT_INVALID",
          `expected the report of the host that the file is named after, found that of ${hostname}`,
        );
      }
      // A report from the future would keep all others out until then.
      if (Date.parse(report.at) > now.getTime() + CLOCK_TOLERANCE_MS) {
        throw new PullError(
          "REPORT_INVALID",
          `it was made at ${report.at}, which is in the future`,
        );
      }
      const target = join(into, `${hostname}.json`);
      if (await isAsNew(target, report, keys)) {
        known.push(hostname);
        continue;
      }
      if (!dryRun) {
        await mkdir(into, { recursive: true });
        await writeDurably(target, bytes, 0o644);
      }
      brought.push(hostname);
    } catch (thrown) {
      const { code, message, exitCode } = toPullError(thrown);
      // An error of this machine's own disk is not the report's fault.
      if (exitCode !== 4) throw thrown;
      refused.push({ file, code, message });
    }
  }
  return { brought, known, refused };
}

/** Whether the report in place is as new or newer. One that cannot be trusted is replaced. */
async function isAsNew(target: string, report: Report, keys: HostKeys | null): Promise<boolean> {
  try {
    const there = await readReport(target, keys);
    return Date.parse(there.report.at) >= Date.parse(report.at);
  } catch {
    return false;
  }
}

import { CLOCK_TOLERANCE_MS } from "../../core/release/acceptance.ts";
import { parseEnvelope } from "../../core/formats/envelope.ts";
import { EXIT, PullError, toPullError } from "../../core/errors.ts";
import {
  MAX_REPORT_BYTES,
  REPORT_PAYLOAD_TYPE,
  openReport,
  parseReport,
  type Report,
} from "../../core/formats/report.ts";
import type { HostKeys } from "../../core/fleet/report-trust.ts";
import { isNotFound } from "../../effects/files/missing-file.ts";
import { RootDirectory, fileNamed, type FileBelow } from "../../effects/files/root-directory.ts";

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
 * ENVELOPE_INVALID, PAYLOAD_TYPE_WRONG, REPORT_INVALID, UNSAFE_FILE, USAGE.
 */
export async function readReport(file: FileBelow, keys: HostKeys | null): Promise<ReadReport> {
  const bytes = await readReportFile(file);
  const claimed = claimedReport(bytes);
  if (keys === null) return { report: claimed, bytes };
  let failure: unknown = new PullError(
    "SIGNATURE_THRESHOLD",
    `${pathOf(file)}: expected a key of ${claimed.hostname} among the hosts' keys, found none`,
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

async function readReportFile(file: FileBelow): Promise<Buffer> {
  return file.root.readFile(file.name, MAX_REPORT_BYTES).catch((cause: unknown) => {
    if (!isNotFound(cause)) throw cause;
    throw new PullError("USAGE", `${pathOf(file)}: expected a report, found no file`, { cause });
  });
}

/** The path of a report, for messages. */
export function pathOf({ root, name }: FileBelow): string {
  return root.nameOf(name);
}

/** The reports in a file, or in a directory such as a mirror's `reports`. Throws USAGE. */
export async function reportFiles(path: string): Promise<FileBelow[]> {
  const root = new RootDirectory(path);
  if (await root.stat("")) return reportsIn(root, "");
  const file = fileNamed(path);
  if (await file.root.stat(file.name)) return [file];
  throw new PullError("USAGE", `${path}: expected a report or a directory of them`);
}

/** The reports in a directory below a root; none if it is not there. Throws UNSAFE_FILE. */
async function reportsIn(root: RootDirectory, directory: string): Promise<FileBelow[]> {
  const names = (await root.listIfExists(directory)).map(({ name }) => name);
  return names
    .filter((name) => name.endsWith(".json"))
    .map((name) => ({ root, name: directory === "" ? name : `${directory}/${name}` }));
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

/**
 * Copies reports from a stick's directory to a mirror's. Only a newer report replaces an older one.
 * A report that cannot be read or placed is refused, and the others are copied. Throws UNSAFE_FILE
 * if one of the two directories of reports is something else, MIRROR_ABSENT if there is no source.
 */
export async function bringReports(
  source: string,
  destination: string,
  { keys, now, dryRun }: { keys: HostKeys | null; now: Date; dryRun: boolean },
): Promise<BroughtReports> {
  const brought: string[] = [];
  const known: string[] = [];
  const refused: { file: string; code: string; message: string }[] = [];
  const into = new RootDirectory(destination);
  const from = new RootDirectory(source);
  if (!(await from.stat(""))) {
    throw new PullError(
      "MIRROR_ABSENT",
      `${source}: expected a directory with reports, found none`,
    );
  }
  const files = await reportsIn(from, REPORTS_DIRECTORY);
  await into.listIfExists(REPORTS_DIRECTORY);
  for (const file of files) {
    try {
      const { report, bytes } = await readReport(file, keys);
      const { hostname } = report;
      const name = `${REPORTS_DIRECTORY}/${hostname}.json`;
      if (file.name !== name) {
        throw new PullError(
          "REPORT_INVALID",
          `expected the report of the host that the file is named after, found that of ${hostname}`,
        );
      }
      // A report from the future would keep all others out until then.
      if (isFromTheFuture(report, now)) {
        throw new PullError(
          "REPORT_INVALID",
          `it was made at ${report.at}, which is in the future`,
        );
      }
      if (await isAsNew({ root: into, name }, { report, keys, now })) {
        known.push(hostname);
        continue;
      }
      if (!dryRun) {
        await into.makeRoot();
        await into.makeDirectory(REPORTS_DIRECTORY);
        await into.writeFile(name, bytes);
      }
      brought.push(hostname);
    } catch (thrown) {
      const { code, message, exitCode } = toPullError(thrown);
      // An error of this machine's own disk is not the report's fault.
      if (exitCode !== EXIT.trust && code !== "UNSAFE_FILE") throw thrown;
      refused.push({ file: pathOf(file), code, message });
    }
  }
  return { brought, known, refused };
}

function isFromTheFuture({ at }: Report, now: Date): boolean {
  return Date.parse(at) > now.getTime() + CLOCK_TOLERANCE_MS;
}

/**
 * Whether the report in place is as new or newer. One that cannot be trusted is replaced, and so is
 * one from the future, which a host made while its clock was wrong. Throws UNSAFE_FILE if something
 * else than a file has its name.
 */
async function isAsNew(
  target: FileBelow,
  { report, keys, now }: { report: Report; keys: HostKeys | null; now: Date },
): Promise<boolean> {
  await target.root.statFile(target.name);
  try {
    const there = await readReport(target, keys);
    if (isFromTheFuture(there.report, now)) return false;
    return Date.parse(there.report.at) >= Date.parse(report.at);
  } catch {
    return false;
  }
}

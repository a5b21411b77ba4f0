import { PullError, toPullError } from "../../core/errors.ts";
import type { HostKeys } from "../../core/fleet/report-trust.ts";
import type { Report } from "../../core/formats/report.ts";
import { pathOf, readReport, reportFiles } from "../../operator/mirror/stick-reports.ts";

/**
 * The reports in files and directories that `option` names, by the keys that are known. Throws USAGE,
 * REPORT_INVALID, and the trust errors.
 */
export async function reportsFrom(
  places: readonly string[],
  keys: HostKeys | null,
  option: string,
): Promise<Report[]> {
  if (places.length === 0) return [];
  if (keys === null) {
    throw new PullError(
      "USAGE",
      `expected --report-key or --keys together with ${option}: ` +
        "`nixos-pull report --public-key` prints a host's key there",
    );
  }
  const reports: Report[] = [];
  for (const place of places) {
    for (const file of await reportFiles(place)) {
      try {
        reports.push((await readReport(file, keys)).report);
      } catch (thrown) {
        const error = toPullError(thrown);
        throw new PullError(error.code, `${pathOf(file)}: ${error.message}`, { cause: error });
      }
    }
  }
  if (reports.length === 0) {
    throw new PullError("USAGE", `expected reports in ${places.join(", ")}, found none`);
  }
  return reports;
}

import { describePosition } from "../../core/formats/manifest.ts";
import type { Report } from "../../core/formats/report.ts";
import { describeDrift } from "../../core/update/drift.ts";
import { formatTable } from "./output.ts";

/** What a host says in its report, a line for each fact; everything that wants a person is there. */
export function describeReport(report: Report): string {
  const { release, accepted, waits = [], hold, drift, pendingReboot, failure } = report;
  const rows = [
    ["host", report.hostname],
    ["machine id", report.machineId ?? "none"],
    ["at", report.at],
    ["channel", report.channel],
    ["release", release ? `${release.sequence}: ${release.toplevel}` : "none applied yet"],
    ["accepted", accepted ? `up to ${describePosition(accepted)}` : "none yet"],
    ["profile", report.profile ?? "none"],
    ["running", report.running ?? "unknown"],
    ["booted", report.booted ?? "unknown"],
    ["state", report.state],
    ["wrong", report.code === null ? "nothing" : `${report.code}: ${report.message}`],
  ];
  if (drift) rows.push(["drift", describeDrift(drift)]);
  if (hold) rows.push(["hold", describeReportedHold(hold)]);
  rows.push(...waits.map(({ reason, message }) => ["waits", `${reason}: ${message}`]));
  if (pendingReboot) {
    rows.push(["reboot", `${pendingReboot.message}; policy ${pendingReboot.policy}`]);
  } else if (release?.rebootNeeded) {
    rows.push(["reboot", "a reboot is needed"]);
  }
  if (failure) {
    const why = failure.code === null ? failure.message : `${failure.code}: ${failure.message}`;
    rows.push(["failed", `release ${failure.sequence ?? "?"} at ${failure.at}: ${why ?? ""}`]);
  }
  rows.push(["agent", report.agentVersion]);
  return formatTable(rows);
}

function describeReportedHold({ at, until, reason }: NonNullable<Report["hold"]>): string {
  if (at === null) return "held, since the file of its hold is damaged";
  const end = until === null ? "" : ` until ${until}`;
  return `held since ${at}${end}${reason === null ? "" : `: ${reason}`}`;
}

import {
  describeCounts,
  describeFailed,
  describeTarget,
  type Distrust,
  type Fleet,
  type FleetHost,
} from "../core/fleet/fleet.ts";
import { sanitize } from "../core/text/sanitize.ts";
import { describeAge } from "../core/text/time-span.ts";

/** How many of a failed update's last lines the table shows. */
const SHOWN_LINES = 3;
const MAX_NOTE = 160;

const HEAD = ["HOST", "RELEASE", "STANDING", "CODE", "SEEN", "REBOOT", "DRIFT", "DISK FREE"];

/** The fleet for a terminal: one line for each host, failing hosts first, then totals. */
export function fleetTable(
  fleet: Fleet,
  formatTable: (rows: readonly (readonly string[])[]) => string,
): string {
  const now = new Date(fleet.at);
  const lines = formatTable([HEAD, ...fleet.hosts.map((host) => row(host, now))]).split("\n");
  const parts = [
    lines[0] ?? "",
    ...fleet.hosts.flatMap((host, at) => [lines[at + 1] ?? "", ...detailsOf(host)]),
    "",
    ...fleet.targets.map((target) => `${sanitize(describeTarget(target))}.`),
    fleet.hosts.length === 0
      ? "No hosts."
      : `${fleet.hosts.length} ${fleet.hosts.length === 1 ? "host" : "hosts"}: ${describeCounts(fleet.counts)}.`,
  ];
  return parts.join("\n");
}

function row(host: FleetHost, now: Date): string[] {
  const { disk } = host;
  return [
    sanitize(host.hostname),
    host.release === null ? "-" : String(host.release),
    host.standing,
    host.code === null ? "-" : sanitize(host.code, MAX_NOTE) || "?",
    host.lastSeen === null ? "never" : describeAge(host.lastSeen, now),
    host.rebootNeeded ? "needed" : "-",
    host.drifted ? "drifted" : "-",
    disk && disk.total > 0 ? `${Math.floor((disk.free / disk.total) * 100)} %` : "-",
  ];
}

/** Why a host is not as it should be, and the last lines of its failed update. */
function detailsOf({ standing, note, failure }: FleetHost): string[] {
  if (note === null || standing === "current") return [];
  const lines = standing === "failing" ? (failure?.lastLines ?? []) : [];
  const { wayBack } = failure ?? {};
  const hasDetails = wayBack !== undefined || lines.length > 0;
  return [
    `    ${sanitize(note, MAX_NOTE)}`,
    ...(failure && hasDetails ? [`    ${sanitize(describeFailed(failure), MAX_NOTE)}:`] : []),
    ...(wayBack === undefined ? [] : [`    way back: ${sanitize(wayBack, MAX_NOTE)}`]),
    ...lines.slice(-SHOWN_LINES).map((line) => `      | ${sanitize(line, MAX_NOTE)}`),
  ];
}

/** A report that was not believed, as one line. A changed key is marked in capitals. */
export function describeDistrust({ hostname, reason, message }: Distrust): string {
  const alarm = reason === "KEY_CHANGED" ? "KEY CHANGED! " : "";
  return sanitize(`${alarm}${hostname}: ${reason}: ${message}`, 600);
}

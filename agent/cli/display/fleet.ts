import {
  TROUBLED,
  describeCounts,
  describeFailed,
  describeTarget,
  type Distrust,
  type Fleet,
  type FleetHost,
  type FleetTarget,
  type Standing,
} from "../../core/fleet/fleet.ts";
import { counted } from "../../core/text/quantity.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import { shortSystemNames, withShortSystems } from "../../core/text/system-names.ts";
import type { Times } from "../../core/text/times.ts";
import {
  styled,
  table,
  type Line,
  type Screen,
  type Span,
  type Style,
  type Text,
} from "./screen.ts";

/** How many of a failed update's last lines the table shows. */
const SHOWN_LINES = 3;
const MAX_NOTE = 160;

/** One column of the table; a column that says nothing of any host is left out. */
interface Column {
  readonly head: string;
  readonly cell: (host: FleetHost, times: Times) => string | Span;
  readonly isOptional?: boolean;
}

const NOTHING = "-";

const COLUMNS: readonly Column[] = [
  { head: "HOST", cell: ({ hostname }) => styled("strong", sanitize(hostname)) },
  {
    head: "RELEASE",
    cell: ({ release }) => (release === null ? NOTHING : String(release)),
  },
  { head: "STANDING", cell: ({ standing }) => styled(styleOf(standing), standing) },
  {
    head: "CODE",
    cell: ({ code }) => (code === null ? NOTHING : sanitize(code, MAX_NOTE) || "?"),
    isOptional: true,
  },
  {
    head: "SEEN",
    cell: ({ lastSeen }, times) => (lastSeen === null ? "never" : times.ago(lastSeen)),
  },
  {
    head: "REBOOT",
    cell: ({ rebootNeeded }) => (rebootNeeded ? "needed" : NOTHING),
    isOptional: true,
  },
  { head: "DRIFT", cell: ({ drifted }) => (drifted ? "drifted" : NOTHING), isOptional: true },
  {
    head: "FREE",
    // One word, so that a row is one line.
    cell: ({ disk }) =>
      disk && disk.total > 0 ? `${Math.floor((disk.free / disk.total) * 100)}%` : NOTHING,
  },
];

function styleOf(standing: Standing): Style {
  if (TROUBLED.has(standing)) return "bad";
  return standing === "current" ? "good" : "waiting";
}

/** The fleet for a terminal: how many hosts are where they should be, then each host, the worst first. */
export function fleetLines(fleet: Fleet, times: Times, screen: Screen): Line[] {
  const { hosts, targets, counts } = fleet;
  const head: Text[] = targets.map((target) => [
    styled(targetStyle(target, fleet), "●"),
    ` ${sanitize(describeTarget(target))}.`,
  ]);
  if (hosts.length === 0) return [...head, "No hosts."];
  const columns = COLUMNS.filter(
    ({ cell, isOptional }) => !isOptional || hosts.some((host) => cell(host, times) !== NOTHING),
  );
  const rows = table(
    [
      columns.map((column) => styled("dim", column.head)),
      ...hosts.map((host) => columns.map(({ cell }) => cell(host, times))),
    ],
    screen,
  );
  return [
    ...head,
    `${counted(hosts.length, "host")}: ${describeCounts(counts)}.`,
    "",
    ...rows.slice(0, 1),
    ...hosts.flatMap((host, at): Line[] => [
      ...rows.slice(at + 1, at + 2),
      ...detailsOf(host, times),
    ]),
  ];
}

function targetStyle({ channel, expired, hosts, onTarget }: FleetTarget, fleet: Fleet): Style {
  const own = fleet.hosts.filter((host) => host.channel === channel);
  if (expired || own.some(({ standing }) => TROUBLED.has(standing))) return "bad";
  return onTarget === hosts ? "good" : "waiting";
}

const nameOf = shortSystemNames();

/** Why a host is not as it should be, and the last lines of its failed update. */
function detailsOf({ standing, note, failure }: FleetHost, times: Times): Text[] {
  if (note === null || standing === "current") return [];
  const lines = standing === "failing" ? (failure?.lastLines ?? []) : [];
  const { wayBack } = failure ?? {};
  const hasDetails = wayBack !== undefined || lines.length > 0;
  const words = (text: string): string =>
    times.within(withShortSystems(sanitize(text, 2 * MAX_NOTE), nameOf));
  return [
    `    ${sanitize(words(note), MAX_NOTE)}`,
    ...(failure && hasDetails
      ? [styled("dim", `    ${sanitize(words(describeFailed(failure)), MAX_NOTE)}:`)]
      : []),
    ...(wayBack === undefined ? [] : [`    way back: ${sanitize(words(wayBack), MAX_NOTE)}`]),
    ...lines
      .slice(-SHOWN_LINES)
      .map((line) => styled("dim", `      | ${sanitize(line, MAX_NOTE)}`)),
  ];
}

/** A report that was not believed, as one line. A changed key is marked in capitals. */
export function describeDistrust({ hostname, reason, message }: Distrust): string {
  const alarm = reason === "KEY_CHANGED" ? "KEY CHANGED! " : "";
  return sanitize(`${alarm}${hostname}: ${reason}: ${message}`, 600);
}

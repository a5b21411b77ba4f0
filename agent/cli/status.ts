import { setTimeout as sleep } from "node:timers/promises";
import { composeTools } from "../host/compose.ts";
import { readStatus, type HostStatus } from "../host/report/host-status.ts";
import { statusJson, statusSchema } from "../host/report/status-json.ts";
import { describeDrift } from "../core/update/drift.ts";
import { EXIT } from "../core/errors.ts";
import { describeHold } from "../core/schedule/hold.ts";
import { memoryOf, rememberedPosition } from "../core/release/acceptance.ts";
import type { AgentRecord } from "../core/update/record.ts";
import { counted } from "../core/text/quantity.ts";
import { tellingLines } from "../core/update/switch-output.ts";
import { describePosition } from "../core/formats/manifest.ts";
import { silentLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { describeVerdict } from "./display/finding.ts";
import { describeReboot } from "./display/reboot.ts";
import { sanitize } from "../core/text/sanitize.ts";
import { encodeJson } from "./display/json.ts";
import { formatTable, printLine } from "./display/output.ts";

/** How often `--watch` looks again. */
const WATCH_MS = 1_000;

function definition() {
  return hostCommand("status", "show what this host is and what the agent does")
    .addOption(jsonOption(statusSchema))
    .option("-w, --watch", "show it again whenever it changes");
}

export const statusCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(status(options, signal));
  });

/** `nixos-pull status`: what this host is and what the agent is doing, from disk alone. */
async function status(options: OptionsOf<typeof definition>, signal: AbortSignal): CommandResult {
  const settings = await loadSettings(options.config);
  const tools = composeTools(settings, silentLog);
  let shown = "";
  do {
    const now = await readStatus(tools);
    const text = options.json ? encodeJson(statusJson(now)) : describeStatus(now);
    if (text !== shown) {
      const redraw = options.watch && !options.json && process.stdout.isTTY;
      if (redraw) process.stdout.write("\u001b[2J\u001b[H");
      printLine(text);
      shown = text;
    }
    if (options.watch) await sleep(WATCH_MS, undefined, { signal }).catch(() => undefined);
  } while (options.watch && !signal.aborted);
  return EXIT.ok;
}

/** The status for people: a line for each fact. */
export function describeStatus(status: HostStatus): string {
  const { hostname, channel, machineId, record, host } = status;
  const { state, denied } = record;
  const memory = memoryOf(record.trust, channel);
  const rows: string[][] = [
    ...status.alarms.map(({ code, message }) => ["ALARM", `${code}: ${message}`]),
    ["host", hostname],
    ["channel", channel],
    ["machine id", machineId ?? "none"],
    ["release", describeRelease(record)],
    ["accepted", memory ? `up to ${describePosition(rememberedPosition(memory))}` : "none yet"],
    [
      "profile",
      host.profile === null
        ? "none"
        : `${host.profile}${host.generation === null ? "" : `, generation ${host.generation}`}`,
    ],
    [
      "running",
      (host.running ?? "unknown") +
        (host.specialisation === undefined ? "" : `, specialisation ${host.specialisation}`),
    ],
    ["boot loader", describeBootLoader(status.bootLoader)],
    ["state", describeState(state)],
  ];
  const { pendingReboot } = record;
  if (pendingReboot?.trial && !pendingReboot.wayBack) {
    const { sequence, toplevel } = pendingReboot.release;
    rows.push(["next boot", `tries release ${sequence}: ${toplevel}`]);
  }
  if (pendingReboot) rows.push(["reboot", describeReboot(pendingReboot, status.rebootPolicy)]);
  if (status.wayBack) rows.push(["way back", describeWayBack(status.wayBack)]);
  if (status.hold.kind !== "none") rows.push(["hold", describeHold(status.hold)]);
  if (status.drift) rows.push(["drift", describeDrift(status.drift)]);
  if (status.lastPoll) rows.push(...pollRows(status.lastPoll));
  if (status.lastImport) {
    const { at, sequence, deltas } = status.lastImport;
    const by = deltas
      ? `, ${counted(deltas.used, "path")} by deltas, ${counted(deltas.failed, "delta")} without use`
      : "";
    rows.push(["imported", `release ${sequence}, ${at}${by}`]);
  }
  for (const { toplevel, specialisation, reason, at } of denied.slice(-3)) {
    const what = specialisation ? `${toplevel}, specialisation ${specialisation},` : toplevel;
    rows.push(["denied", `${what} since ${at}: ${reason.code}: ${reason.message}`]);
  }
  rows.push(...status.lastSwitches.flatMap(switchRows));
  return formatTable(rows);
}

function describeRelease({ committed, earlier, pendingReboot }: AgentRecord): string {
  if (committed === null) {
    return earlier ? "none: no release brought the system that runs" : "none applied yet";
  }
  const reboot = pendingReboot ? ", REBOOT NEEDED" : "";
  return `${committed.sequence}, ${committed.mode} at ${committed.at}${reboot}`;
}

function describeWayBack({ at, event, sequence, message }: NonNullable<HostStatus["wayBack"]>) {
  const failed = event.endsWith("Failed") ? "FAILED: " : "";
  return `${at}${sequence === undefined ? "" : `, from release ${sequence}`}: ${failed}${message}`;
}

/** So many of the lines of one switch are shown; the history has all that are kept. */
const SHOWN_LINES = 12;
const MAX_LINE = 400;

/** An event of the last attempt with what its switch printed. */
function switchRows(entry: HostStatus["lastSwitches"][number]): string[][] {
  const { at, event, sequence, code, message, lastLines } = entry;
  const why = code === undefined ? message : `${code}: ${message}`;
  const what = `${at}, release ${sequence ?? "-"}, ${event}${why === undefined ? "" : `: ${why}`}`;
  const lines = tellingLines(lastLines, SHOWN_LINES);
  return [["switch", what], ...lines.map((line) => ["", `| ${sanitize(line, MAX_LINE)}`])];
}

/** What the last poll found, a line for each fact. */
function pollRows(poll: NonNullable<HostStatus["lastPoll"]>): string[][] {
  const found =
    poll.error === null
      ? `release ${poll.release?.sequence ?? "none"}: ${poll.decision}`
      : `${poll.error.code}: ${poll.error.message}`;
  return [
    ["last poll", `${poll.at}, ${found}`],
    ...poll.waits.map(({ reason, message }) => ["waits", `${reason}: ${message}`]),
    ...poll.mirrors.map((it) => ["mirror", `${it.mirror}: ${describeVerdict(it)}`]),
    ...poll.archives.map(({ mirror, at, code, message }) => [
      "archives",
      `${mirror}: ${code === undefined ? "served" : `${code}: ${message}`}, ${at}`,
    ]),
  ];
}

function describeBootLoader({ name, cannotTry }: HostStatus["bootLoader"]): string {
  const can =
    cannotTry === null
      ? "a system that needs a boot is tried once"
      : `a system that needs a boot is not tried first: ${cannotTry}`;
  return `${name ?? "unknown"}; ${can}`;
}

function describeState(state: AgentRecord["state"]): string {
  switch (state.name) {
    case "Idle":
      return "Idle";
    case "Failed":
      return (
        `Failed, attempt ${state.attempts} at release ${state.release.sequence}, ` +
        (state.gaveUp
          ? "waits for `nixos-pull apply` or another release"
          : `next at ${state.retryAt}`) +
        `: ${state.reason.code}: ${state.reason.message}`
      );
    case "RollingBack":
    case "RolledBack":
      return `${state.name} from release ${state.release.sequence}: ${state.reason.code}: ${state.reason.message}`;
    case "Reverting":
      return (
        `Reverting by hand to generation ${state.target.generation}, ${state.target.toplevel}` +
        (state.failures > 0 ? `, FAILED ${state.failures} times` : "")
      );
    case "Candidate":
    case "Fetching":
    case "Imported":
    case "Staged":
    case "Activating":
    case "Verifying":
    case "Committing":
    case "Armed":
    case "Committed":
      return `${state.name}, release ${state.release.sequence}: ${state.release.toplevel}`;
    default:
      return state satisfies never;
  }
}

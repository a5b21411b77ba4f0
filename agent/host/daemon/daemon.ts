import { PullError, toPullError } from "../../core/errors.ts";
import { formatDuration } from "../../core/text/duration.ts";
import type { AgentTools } from "../agent-tools.ts";
import { readStatus, type StatusTools } from "../report/host-status.ts";
import { statusJson } from "../report/status-json.ts";
import { serveHostMetrics, writeMetricsFile, type MetricsTools } from "../report/metrics.ts";
import { ReportDelivery, type DeliveryTools } from "../report/report-delivery.ts";
import { handReport, type StickReportTools } from "../report/stick-report.ts";
import { tick, type TickTools } from "../tick.ts";
import { nameNow, waitForNews, type WaitTools } from "./between-polls.ts";
import { TickLog } from "./tick-log.ts";
import { FailureHook, type FailureHookTools } from "./failure-hook.ts";
import { tellHang, type HangTools } from "./hang.ts";
import { nextOccasion } from "./next-occasion.ts";
import { PollPace, type PaceTools } from "./poll-pace.ts";
import { StrayWatch, type StrayTools } from "./stray-watch.ts";

/** Two ticks are never closer than this. */
const SOONEST_MS = 1_000;

/** Wait after a tick that found another process at work. */
const BUSY_WAIT_MS = 10_000;

/** What the service takes. */
export type DaemonTools = TickTools &
  StatusTools &
  MetricsTools &
  DeliveryTools &
  StickReportTools &
  WaitTools &
  FailureHookTools &
  PaceTools &
  HangTools &
  StrayTools;

/** Why the service ended. */
export type DaemonEnd =
  /** It was stopped, or makes way for another agent. */
  | "stopped"
  /** The host has another name now, by which it has to be followed. */
  | "renamed";

/**
 * Polls until `signal` says stop, and then ends at the next safe point: downloads stop at once
 * and are resumed later, a running activation is brought to its end. It also ends once the
 * system has another agent: the service manager starts that in its place; and if the host gets
 * another name. Throws AGENT_RUNNING if another agent has the state directory.
 */
export async function runDaemon(tools: DaemonTools, signal: AbortSignal): Promise<DaemonEnd> {
  const { state, locks } = tools;
  await state.prepare();
  const release = await locks.take("agent");
  if (!release) {
    throw new PullError(
      "AGENT_RUNNING",
      `another nixos-pull run has ${locks.fileOf("agent")}; stop it first`,
    );
  }
  const strays = new StrayWatch(tools);
  const endWatchdog = tools.watchdog.start();
  let closeSocket: (() => Promise<void>) | undefined;
  let closeMetrics: (() => Promise<void>) | undefined;
  try {
    await tellHang(tools);
    closeSocket = await openStatusSocket(tools);
    closeMetrics = await serveHostMetrics(tools);
    await announceHostKey(tools);
    return await pollUntilStopped(tools, strays, signal);
  } finally {
    strays.end();
    endWatchdog();
    await closeMetrics?.();
    await closeSocket?.();
    await release();
  }
}

/** Ticks, tells about it and waits, again and again. */
async function pollUntilStopped(
  tools: DaemonTools,
  strays: StrayWatch,
  signal: AbortSignal,
): Promise<DaemonEnd> {
  const { settings, log, sticks, commandsWatch, successor } = tools;
  const reports = new ReportDelivery(tools);
  const rhythm = {
    ...{ tickLog: new TickLog(log), pace: new PollPace(tools), failures: new FailureHook(tools) },
  };
  const { channel, hostname, mirrors } = settings;
  log.info(`following channel ${channel} as ${hostname} from ${mirrors.join(", ")}`);
  const stopped = (): boolean => signal.aborted;
  while (!stopped()) {
    // From before the poll, so that what comes during it is polled for too.
    await sticks.look();
    await commandsWatch.look();
    const wait = await strays.during(signal, (either) =>
      tickOnce(tools, rhythm, { signal, either }),
    );
    await writeMetricsFile(tools);
    await reports.sendNew(signal);
    await handReport(tools);
    if (stopped()) break;
    log.debug(`next poll in ${formatDuration(wait)}`);
    if ((await successor.look()).differs) {
      log.info("this system has another agent or configuration now; ending to be started as that");
      return "stopped";
    }
    const news = await waitForNews(wait, reports, tools, signal);
    if (news !== undefined) log.info(`${news}; polling now`);
    if (settings.isNamedBySystem && nameNow(tools) !== null) return "renamed";
  }
  log.info("stopped");
  return "stopped";
}

/** A host that nobody can log in to goes on without its socket. */
async function openStatusSocket(
  tools: StatusTools & Pick<AgentTools, "outlets" | "log" | "watchdog">,
): Promise<(() => Promise<void>) | undefined> {
  const { path, group } = tools.settings.statusSocket;
  if (path === undefined) return undefined;
  try {
    return await tools.outlets.serveStatus({ path, group }, async () => {
      const status = await tools.watchdog.beside(() => readStatus(tools));
      return `${JSON.stringify(statusJson(status), null, 2)}\n`;
    });
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    tools.log.error(`there is no status socket: ${message}`, { code });
    return undefined;
  }
}

/** Makes the host's key on the first start, so that people can ask for it before any report. */
async function announceHostKey({
  hostKey,
  log,
}: Pick<AgentTools, "hostKey" | "log">): Promise<void> {
  try {
    const { publicKey } = await hostKey();
    log.info(`reports of this host are signed with ${publicKey.text}`);
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    log.error(`this host cannot sign reports: ${message}`, { code });
  }
}

/** What one tick of the service takes from the one before. */
interface Rhythm {
  readonly tickLog: TickLog;
  readonly pace: PollPace;
  readonly failures: FailureHook;
}

/** One tick; gives the wait until the next. An error is logged, never the end of the agent. */
async function tickOnce(
  tools: DaemonTools,
  { tickLog, pace, failures }: Rhythm,
  { signal, either }: { signal: AbortSignal; either: AbortSignal },
): Promise<number> {
  const { log, clock, settings } = tools;
  try {
    const outcome = await tick(tools, { insistence: "patient", signal: either });
    tickLog.tell(outcome);
    await failures.hear(outcome, signal);
    const scheduled = pace.after(outcome);
    const now = clock.now();
    const next = nextOccasion(outcome, settings, now);
    const wait = next === null ? Infinity : next - now.getTime();
    return Math.min(scheduled, Math.max(wait, SOONEST_MS));
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code === "INTERRUPTED" && signal.aborted) return 0;
    if (error.code === "AGENT_BUSY") return Math.min(pace.schedule(), BUSY_WAIT_MS);
    log.error(error.message, { code: error.code, stack: error.stack });
    await failures.hear({ error }, signal).catch(() => undefined);
    return pace.schedule();
  }
}

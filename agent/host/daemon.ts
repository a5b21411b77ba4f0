import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MAX_TIMER_MS, formatDuration } from "../core/text/duration.ts";
import { PullError, toPullError } from "../core/errors.ts";
import { pollWait } from "../core/schedule/poll-schedule.ts";
import { endOf } from "../core/schedule/waiting.ts";
import { hostKey } from "../effects/state/host-key.ts";
import { OrdersWatch } from "../effects/state/operator-commands-watch.ts";
import { tryLock } from "../effects/process/process-lock.ts";
import { StickWatch } from "../effects/report/stick-watch.ts";
import { serveStatus } from "../effects/report/status-socket.ts";
import { nextRebootWindow } from "./update/reboot.ts";
import { readStatus, statusJson } from "./report/host-status.ts";
import { serveHostMetrics, writeMetricsFile } from "./report/metrics.ts";
import { handReport } from "./report/stick-report.ts";
import { Agent, type AgentTools, type TickOutcome } from "./agent.ts";
import { ReportDelivery } from "./report/report-delivery.ts";

const LOCK = "agent.lock";

/** Two ticks are never closer than this. */
const SOONEST_MS = 1_000;

/** Wait after a tick that found another process at work. */
const BUSY_WAIT_MS = 10_000;

/** A report is not tried again more often than this, whatever the clock does. */
const MIN_RETRY_MS = 1_000;

/**
 * Polls until `signal` says stop, and then ends at the next safe point: downloads stop
 * at once and are resumed later, a running activation is brought to its end. Throws
 * AGENT_RUNNING where another agent has the state directory, and CONFIG_INVALID.
 * It also ends where the system has another agent now, for the service manager to start
 * that in its place.
 */
export async function runDaemon(tools: AgentTools, signal: AbortSignal): Promise<void> {
  const { settings, log, state } = tools;
  const schedule = (): number => pollWait(settings.poll, tools.clock.now(), tools.random());
  await state.prepare();
  const lock = await tryLock(join(settings.paths.state, LOCK));
  if (!lock) {
    throw new PullError(
      "AGENT_RUNNING",
      `another nixos-pull run has ${settings.paths.state}/${LOCK}; stop it first`,
    );
  }
  let closeSocket: (() => Promise<void>) | undefined;
  let closeMetrics: (() => Promise<void>) | undefined;
  try {
    closeSocket = await openStatusSocket(tools);
    closeMetrics = await serveHostMetrics(tools);
    await announceHostKey(tools);
    const agent = new Agent(tools);
    const reports = new ReportDelivery(tools);
    const sticks = new StickWatch(settings.mirrors, settings.channel);
    const orders = new OrdersWatch(settings.paths.state);
    const presence = new Presence(log);
    log.info(
      `following channel ${settings.channel} as ${settings.hostname} from ${settings.mirrors.join(", ")}`,
    );
    const stopped = (): boolean => signal.aborted;
    while (!stopped()) {
      // From before the poll, so that what comes during it is polled for too.
      await sticks.look();
      await orders.look();
      const wait = await tickOnce(agent, tools, schedule, presence, signal);
      await writeMetricsFile(tools);
      await reports.sendNew(signal);
      await handReport(tools);
      if (stopped()) break;
      log.debug(`next poll in ${formatDuration(wait)}`);
      if ((await tools.successor.look()).differs) {
        log.info(
          "this system has another agent or configuration now; ending to be started as that",
        );
        return;
      }
      const every = settings.sticks.watch;
      const news = await firstOf(signal, [
        async (ended) => {
          await pauseAndRetry(wait, reports, ended);
          return undefined;
        },
        (ended) => stickNews(sticks, every, ended),
        async (ended) =>
          (await orders.untilNews(ended)) ? "somebody gave this host an order" : undefined,
      ]);
      if (news !== undefined) log.info(`${news}; polling now`);
    }
    log.info("stopped");
  } finally {
    await closeMetrics?.();
    await closeSocket?.();
    await lock.release();
  }
}

/** A host that nobody can log in to goes on without its socket. */
async function openStatusSocket(tools: AgentTools): Promise<(() => Promise<void>) | undefined> {
  const { path, group } = tools.settings.statusSocket;
  if (path === undefined) return undefined;
  try {
    return await serveStatus(
      path,
      group,
      async () => `${JSON.stringify(statusJson(await readStatus(tools)), null, 2)}\n`,
    );
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    tools.log.error(`there is no status socket: ${message}`, { code });
    return undefined;
  }
}

/** Makes the host's key on the first start, so that it can be asked for before any report. */
async function announceHostKey({ settings, log }: AgentTools): Promise<void> {
  try {
    const { publicKey } = await hostKey(settings.paths.state, settings.hostname);
    log.info(`reports of this host are signed with ${publicKey.text}`);
  } catch (thrown) {
    const { code, message } = toPullError(thrown);
    log.error(`this host cannot sign reports: ${message}`, { code });
  }
}

/** Waits for the next poll; a report that could not be delivered is tried again meanwhile. */
async function pauseAndRetry(
  ms: number,
  reports: ReportDelivery,
  signal: AbortSignal,
): Promise<void> {
  const end = performance.now() + ms;
  for (;;) {
    const left = end - performance.now();
    const retry = await reports.untilRetry();
    await pause(Math.min(left, Math.max(retry, MIN_RETRY_MS)), signal);
    if (signal.aborted || retry >= left) return;
    await reports.retry(signal);
  }
}

/** Waits, in steps that timers can measure, until the time is over or `signal` says stop. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  for (let left = ms; left > 0 && !signal.aborted; left -= MAX_TIMER_MS) {
    await sleep(Math.min(left, MAX_TIMER_MS), undefined, { signal }).catch(() => undefined);
  }
}

/** Something to wait for: gives what came, or nothing where that is only that time passed. */
type Waiting = (ended: AbortSignal) => Promise<string | undefined>;

/** Waits for the first of several things, or for `signal`, and ends the others. */
async function firstOf(
  signal: AbortSignal,
  things: readonly Waiting[],
): Promise<string | undefined> {
  const end = new AbortController();
  const ended = AbortSignal.any([signal, end.signal]);
  const waiting = things.map((thing) =>
    thing(ended).finally(() => {
      end.abort();
    }),
  );
  const came = await Promise.all(waiting);
  return came.find((it) => it !== undefined);
}

/** Waits until a stick came or changed; where there is none to watch, for the end. */
async function stickNews(
  watch: StickWatch,
  every: number,
  ended: AbortSignal,
): Promise<string | undefined> {
  if (every === 0 || watch.isIdle) {
    await pause(Infinity, ended);
    return undefined;
  }
  const isOver = (): boolean => ended.aborted;
  while (!isOver()) {
    await pause(every, ended);
    const news = isOver() ? [] : await watch.look();
    if (news.length > 0) return news.map((address) => `${address} has news`).join(", ");
  }
  return undefined;
}

/** Says once that a stick is not there, and once that it is. */
class Presence {
  readonly #absent = new Set<string>();
  readonly #log: AgentTools["log"];

  constructor(log: AgentTools["log"]) {
    this.#log = log;
  }

  hear({ mirror, code, message }: TickOutcome["verdicts"][number]): void {
    if (code === "MIRROR_ABSENT") {
      if (!this.#absent.has(mirror)) this.#log.info(`${mirror}: ${message}`, { code });
      this.#absent.add(mirror);
    } else if (this.#absent.delete(mirror)) {
      this.#log.info(`${mirror}: there again`);
    }
  }
}

/** One tick; gives the wait until the next. An error is logged, never the end of the agent. */
async function tickOnce(
  agent: Agent,
  tools: AgentTools,
  schedule: () => number,
  presence: Presence,
  signal: AbortSignal,
): Promise<number> {
  const { log, clock } = tools;
  try {
    const outcome = await agent.tick({ insistence: "patient", signal });
    logOutcome(outcome, tools, presence);
    const next = nextOccasion(outcome, tools);
    const wait = next === null ? Infinity : next - clock.now().getTime();
    return Math.min(schedule(), Math.max(wait, SOONEST_MS));
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code === "INTERRUPTED") return 0;
    if (error.code === "AGENT_BUSY") return Math.min(schedule(), BUSY_WAIT_MS);
    log.error(error.message, { code: error.code, stack: error.stack });
    return schedule();
  }
}

/**
 * When there will be something to do again before the next poll, if that is known: a retry,
 * the end of a wait, a window for a reboot. What is overdue and could not be done is not.
 */
function nextOccasion(outcome: TickOutcome, tools: AgentTools): number | null {
  const { record, decision } = outcome;
  const { state, pendingReboot } = record;
  const { settings, clock } = tools;
  const now = clock.now();
  // Past a barrier the release behind it comes next.
  if (outcome.next && (outcome.updated || decision?.kind === "adopt")) return now.getTime();
  const reboots = pendingReboot !== null && settings.reboot.policy === "window";
  const occasions = [
    decision?.kind === "waiting" ? endOf(decision.waits) : null,
    reboots ? (nextRebootWindow(settings, now)?.toISOString() ?? null) : null,
    state.name === "Failed" ? state.retryAt : null,
  ].flatMap((at) => (at === null ? [] : Date.parse(at)));
  const tried = state.name === "Failed" && decision?.kind === "update";
  const open = tried ? occasions : occasions.filter((at) => at > now.getTime());
  return open.length === 0 ? null : Math.min(...open);
}

function logOutcome(outcome: TickOutcome, { log }: AgentTools, presence: Presence): void {
  for (const verdict of outcome.verdicts) {
    const { mirror, code, message } = verdict;
    presence.hear(verdict);
    // A stick is elsewhere most of the time.
    if (code === "MIRROR_ABSENT") continue;
    if (code !== undefined) log.warn(`${mirror}: ${message}`, { code });
  }
  const { decision, error, release } = outcome;
  if (error && error.code !== "INTERRUPTED") {
    const alreadySaid = outcome.verdicts.some(({ code }) => code === error.code);
    if (!alreadySaid) log.error(error.message, { code: error.code });
  }
  switch (decision?.kind) {
    case "denied":
      log.warn(`release ${release?.sequence} is not tried again: ${decision.reason.message}`, {
        code: "RELEASE_DENIED",
      });
      break;
    case "drifted":
      log.warn(`this host was changed by hand and is left alone: found ${decision.found}`);
      break;
    case "waiting":
      for (const { reason, message } of decision.waits) {
        log.info(`release ${release?.sequence} waits: ${message}`, { code: reason });
      }
      break;
    case "active":
    case "adopt":
    case "backoff":
    case "update":
    case undefined:
      log.debug(`poll: ${decision?.kind ?? "nothing"}`);
      break;
    default:
      decision satisfies never;
  }
}

import { hostnameSchema } from "../../core/formats/manifest.ts";
import { MAX_TIMER_MS, formatDuration } from "../../core/text/duration.ts";
import type { Clock, StickWatch, Timers } from "../../core/ports.ts";
import type { AgentTools } from "../agent-tools.ts";
import type { ReportDelivery } from "../report/report-delivery.ts";

/** A report is not tried again more often than this, whatever the clock does. */
const MIN_RETRY_MS = 1_000;

/** While it waits, the service looks this often whether its clock was set. */
const CLOCK_LOOK_MS = 60_000;

/** A clock that moved this much against the steady one was set, or the machine was suspended. */
const CLOCK_JUMP_MS = 60_000;

/** What waiting for the next poll takes. */
export type WaitTools = Pick<
  AgentTools,
  "settings" | "clock" | "timers" | "sticks" | "commandsWatch" | "hostname" | "watchdog"
>;

/**
 * Waits for the next poll, and tries meanwhile to deliver a report that could not be delivered.
 * Ends early if a stick came, somebody commanded something or the clock jumped, and gives what
 * that was; ends with `signal` too.
 */
export async function waitForNews(
  ms: number,
  reports: Pick<ReportDelivery, "untilRetry" | "retry">,
  tools: WaitTools,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { settings, clock, timers, sticks, commandsWatch, watchdog } = tools;
  // Of these, a sign of life would hide that the wait itself hangs.
  const beside =
    (thing: Occurrence): Occurrence =>
    (ended) =>
      watchdog.beside(() => thing(ended));
  return firstOf(signal, [
    async (ended) => {
      await pauseAndRetry(ms, reports, timers, ended);
      return undefined;
    },
    beside((ended) => clockJump(clock, timers, ended)),
    beside((ended) => stickNews(sticks, settings.sticks.watch, timers, ended)),
    beside(async (ended) =>
      (await commandsWatch.untilNews(ended)) ? "somebody gave this host an order" : undefined,
    ),
    beside((ended) => newName(tools, ended)),
  ]);
}

/** Waits for the next poll; a report that could not be delivered is tried again meanwhile. */
async function pauseAndRetry(
  ms: number,
  reports: Pick<ReportDelivery, "untilRetry" | "retry">,
  timers: Timers,
  signal: AbortSignal,
): Promise<void> {
  const end = timers.steadyMs() + ms;
  for (;;) {
    const left = end - timers.steadyMs();
    const retry = await reports.untilRetry();
    await pause(Math.min(left, Math.max(retry, MIN_RETRY_MS)), timers, signal);
    if (signal.aborted || retry >= left) return;
    await reports.retry(signal);
  }
}

/**
 * Waits until the clock is no longer what it was: the machine was suspended, and the steady
 * clock stood still meanwhile (clock_gettime(2), CLOCK_MONOTONIC), or somebody set the time.
 * Whatever was waited for may be due.
 */
async function clockJump(
  clock: Clock,
  timers: Timers,
  ended: AbortSignal,
): Promise<string | undefined> {
  const apart = (): number => clock.now().getTime() - timers.steadyMs();
  const before = apart();
  const isOver = (): boolean => ended.aborted;
  while (!isOver()) {
    await pause(CLOCK_LOOK_MS, timers, ended);
    const moved = apart() - before;
    if (isOver() || Math.abs(moved) <= CLOCK_JUMP_MS) continue;
    const by = formatDuration(Math.round(Math.abs(moved) / 1000) * 1000);
    return moved > 0
      ? `the clock is ${by} ahead of the time that passed (suspended, or set)`
      : `the clock was set back by ${by}`;
  }
  return undefined;
}

/** Waits, in steps that timers can measure, until the time is over or `signal` says stop. */
async function pause(ms: number, timers: Timers, signal: AbortSignal): Promise<void> {
  for (let left = ms; left > 0 && !signal.aborted; left -= MAX_TIMER_MS) {
    await timers.sleep(Math.min(left, MAX_TIMER_MS), signal).catch(() => undefined);
  }
}

/** Something that may come: gives what came, or nothing if that is only that time passed. */
type Occurrence = (ended: AbortSignal) => Promise<string | undefined>;

/** Waits for the first of several things, or for `signal`, and ends the others. */
async function firstOf(
  signal: AbortSignal,
  things: readonly Occurrence[],
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

/** So often the host's name is looked at. */
const NAME_LOOK_MS = 5_000;

/** The name that the host has now, if it is another than it was followed by; else null. */
export function nameNow({
  settings,
  hostname,
}: Pick<AgentTools, "settings" | "hostname">): string | null {
  const name = hostname();
  return name !== settings.hostname && hostnameSchema.safeParse(name).success ? name : null;
}

/** Waits until the host has another name; if the settings have its name, for the end. */
async function newName(tools: WaitTools, ended: AbortSignal): Promise<string | undefined> {
  const { settings, timers } = tools;
  const every = settings.isNamedBySystem ? NAME_LOOK_MS : Infinity;
  const isOver = (): boolean => ended.aborted;
  while (!isOver()) {
    await pause(every, timers, ended);
    const name = isOver() ? null : nameNow(tools);
    if (name !== null) return `this host is called ${name} now`;
  }
  return undefined;
}

/** Waits until a stick came or changed; if there is none to watch, for the end. */
async function stickNews(
  watch: StickWatch,
  every: number,
  timers: Timers,
  ended: AbortSignal,
): Promise<string | undefined> {
  if (every === 0 || watch.isIdle) {
    await pause(Infinity, timers, ended);
    return undefined;
  }
  const isOver = (): boolean => ended.aborted;
  while (!isOver()) {
    await pause(every, timers, ended);
    const news = isOver() ? [] : await watch.look();
    if (news.length > 0) return news.map((address) => `${address} has news`).join(", ");
  }
  return undefined;
}

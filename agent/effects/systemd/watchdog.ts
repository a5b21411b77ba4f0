import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Log, Watchdog } from "../../core/ports.ts";
import { removeDurably } from "../files/durable-file.ts";
import { ifMissing } from "../files/missing-file.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { ownActivity, type Activity } from "../process/activity.ts";
import { runProcess } from "../process/subprocess.ts";

/** The unit's ExecStopPost= leaves an empty file of this name with systemd's word for the end. */
const ENDED = /^ended-[a-z-]+$/;

/** How the service ended if the service manager's watchdog ended it (systemd.exec(5)). */
const BY_WATCHDOG = "ended-watchdog";

/** Beats in the time that the service manager waits for one: a late one is no harm. */
const BEATS = 4;

/** The share of that time for which the agent's own work may give no sign of life. */
const SILENCE = 0.5;

/** What the service manager put into the environment (sd_watchdog_enabled(3)). */
type Environment = Readonly<Record<string, string | undefined>>;

/** What tells the service manager that this process lives. */
export interface WatchdogOptions {
  readonly stateDirectory: string;
  readonly log: Pick<Log, "error" | "warn">;
  readonly environment?: Environment;
  readonly activity?: Activity;
  /** Tells it once; `systemd-notify`, if absent. */
  readonly notify?: () => Promise<void>;
}

/**
 * systemd's watchdog. There is a beat as long as this process runs its timers and its work gives
 * signs of life; without beats, systemd ends the service and starts it again.
 */
export function watchdogOf({
  stateDirectory,
  log,
  environment = process.env,
  activity = ownActivity,
  notify = () => notifyManager(environment["NOTIFY_SOCKET"] ?? ""),
}: WatchdogOptions): Watchdog {
  return {
    start() {
      const limit = limitOf(environment);
      if (limit === null) return () => undefined;
      let isSilent = false;
      const beat = (): void => {
        const silence = activity.silence();
        const wasSilent = isSilent;
        isSilent = silence > limit * SILENCE;
        if (isSilent && !wasSilent) {
          log.error(
            `no sign of life for ${Math.round(silence / 1000)} s: the service manager ends this ` +
              "service soon, unless there is one",
            { code: "AGENT_HUNG" },
          );
        }
        if (isSilent) return;
        activity.beside(notify).catch((error: unknown) => {
          log.warn(`the service manager was not told that this agent lives: ${String(error)}`);
        });
      };
      activity.sign();
      beat();
      const timer = setInterval(beat, limit / BEATS);
      return () => {
        clearInterval(timer);
      };
    },
    beside: (work) => activity.beside(work),
    sign: () => {
      activity.sign();
    },
    takeHang: () => takeHang(stateDirectory),
  };
}

/** How long the service manager waits for a beat of this process; null if it does not. */
function limitOf({ NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID }: Environment): number | null {
  const limit = Number(WATCHDOG_USEC ?? 0) / 1000;
  const isOurs = WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === process.pid;
  return NOTIFY_SOCKET !== undefined && isOurs && limit > 0 ? limit : null;
}

/** Node has no datagram sockets for files, so that a program of systemd sends the beat. */
async function notifyManager(socket: string): Promise<void> {
  const result = await runProcess("systemd-notify", ["WATCHDOG=1"], {
    env: { ...childEnvironment(), NOTIFY_SOCKET: socket },
    timeoutMs: 30_000,
  });
  if (result.exitCode !== 0) throw new Error(result.stderr.trim());
}

/** When the last service was ended because it hung; what says so is removed. */
async function takeHang(directory: string): Promise<Date | null> {
  const names = (await ifMissing(readdir(directory), [])).filter((name) => ENDED.test(name));
  let hang: Date | null = null;
  for (const name of names) {
    const path = join(directory, name);
    if (name === BY_WATCHDOG) hang = (await ifMissing(stat(path), null))?.mtime ?? null;
    await removeDurably(path);
  }
  return hang;
}

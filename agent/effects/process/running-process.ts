import { spawn, type ChildProcess } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { PullError } from "../../core/errors.ts";

/** What every program is started with. */
export interface StartOptions {
  /** The whole environment; nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  /** After this time the program is ended: SIGTERM, then SIGKILL. */
  readonly timeoutMs: number;
  /** Ends the program in the same way. */
  readonly signal?: AbortSignal | undefined;
  /** File descriptors of ours that the program gets as 3, 4, …. */
  readonly descriptors?: readonly number[];
}

/** How a program ended. */
export interface ProcessEnd {
  /** Null if a signal ended it. */
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly timedOut: boolean;
}

/** Time between the signal that a program can handle and the one that it cannot. */
const KILL_DELAY_MS = 5_000;
/** Time that output gets to arrive after the program's end, and after it was stopped. */
const DRAIN_MS = 2_000;
/** Time between two looks whether a process group is gone. */
const GROUP_LOOK_MS = 20;

/**
 * A program that runs in a process group of its own. Every program that this code base
 * starts is one of these: started with a list of arguments and no shell, with a time limit,
 * and stopped together with its children.
 */
export class RunningProcess {
  /** Null only if the program could not be started for want of file descriptors. */
  readonly stdin: Writable | null;
  readonly stdout: Readable | null;
  readonly stderr: Readable | null;
  readonly #child: ChildProcess;
  readonly #signal: AbortSignal | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #exited: Promise<Omit<ProcessEnd, "timedOut">>;
  readonly #closed: Promise<void>;
  readonly #stopped: Promise<void>;
  #resolveStopped = (): void => undefined;
  #killTimer: NodeJS.Timeout | undefined;
  #timedOut = false;

  /** Starts the program. Throws INTERRUPTED if the signal is set already. */
  constructor(command: string, args: readonly string[], options: StartOptions) {
    if (options.signal?.aborted) throw new PullError("INTERRUPTED", `${command} was not started`);
    const child = spawn(command, args, {
      env: options.env,
      stdio: ["pipe", "pipe", "pipe", ...(options.descriptors ?? [])],
      detached: true,
    });
    this.#child = child;
    ({ stdin: this.stdin, stdout: this.stdout, stderr: this.stderr } = child);
    this.#exited = new Promise((resolve, reject) => {
      child.once("error", (cause) => {
        reject(startFailure(command, options.env, cause));
      });
      child.once("exit", (exitCode, signal) => {
        resolve({ exitCode, signal });
      });
    });
    this.#closed = new Promise((resolve) => {
      child.once("close", () => {
        resolve();
      });
    });
    this.#stopped = new Promise((resolve) => {
      this.#resolveStopped = resolve;
    });
    // Whoever waits for the end hears of a failed start; without this, Node ends the agent.
    this.#exited.catch(() => undefined);
    this.#signal = options.signal;
    this.#signal?.addEventListener("abort", this.stop, { once: true });
    this.#timer = setTimeout(() => {
      this.#timedOut = true;
      this.stop();
    }, options.timeoutMs);
  }

  /** Whether the program was told to end, by us, its time limit or the signal. */
  get isStopped(): boolean {
    return this.#killTimer !== undefined;
  }

  /** Asks the process group to end, and kills what is left of it after some seconds. */
  readonly stop = (): void => {
    if (this.isStopped) return;
    this.#killTimer = setTimeout(this.kill, KILL_DELAY_MS);
    this.#signalGroup("SIGTERM");
    this.#resolveStopped();
  };

  /** Kills the process group at once. */
  readonly kill = (): void => {
    this.stop();
    this.#signalGroup("SIGKILL");
  };

  /**
   * Waits until the program has ended, and if it was stopped its process group too. What it
   * left running may hold its output open for ever: such output is closed after some time. If
   * `untilOutputEnds`, it is closed only after the time limit or the signal. Throws TOOL_MISSING
   * and the operating system's errors if the program could not be started.
   */
  async ended({ untilOutputEnds }: { untilOutputEnds: boolean }): Promise<ProcessEnd> {
    const drain = new AbortController();
    const drained = (): Promise<unknown> =>
      sleep(DRAIN_MS, undefined, { signal: drain.signal }).catch(() => undefined);
    try {
      const exit = await this.#exited;
      await Promise.race([this.#closed, this.#stopped, ...(untilOutputEnds ? [] : [drained()])]);
      this.#disarm();
      if (this.isStopped) {
        await this.#groupEnded();
        await Promise.race([this.#closed, drained()]);
      }
      return { ...exit, timedOut: this.#timedOut };
    } finally {
      drain.abort();
      this.#disarm();
      clearTimeout(this.#killTimer);
      for (const stream of [this.stdin, this.stdout, this.stderr]) stream?.destroy();
    }
  }

  #disarm(): void {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener("abort", this.stop);
  }

  /** Children that ignore the first signal are still there when the program itself has ended. */
  async #groupEnded(): Promise<void> {
    // The end of a killed process is not immediate either.
    const limit = performance.now() + KILL_DELAY_MS + DRAIN_MS;
    while (this.#signalGroup(0) && performance.now() < limit) await sleep(GROUP_LOOK_MS);
  }

  /** Gives false if no process of the group is left. Signal 0 only asks (kill(2)). */
  #signalGroup(signal: NodeJS.Signals | 0): boolean {
    if (this.#child.pid === undefined) return false;
    try {
      return process.kill(-this.#child.pid, signal);
    } catch {
      return false;
    }
  }
}

function startFailure(
  command: string,
  env: Readonly<Record<string, string>>,
  cause: NodeJS.ErrnoException,
): Error {
  if (cause.code !== "ENOENT") return cause;
  return new PullError(
    "TOOL_MISSING",
    `expected the program ${command} on PATH, found none in ${env["PATH"] ?? "(no PATH)"}`,
    { cause },
  );
}

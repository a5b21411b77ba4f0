import { spawn } from "node:child_process";
import { PullError } from "../core/errors.ts";

/** How a program ended, with all that a message about it needs. */
export interface ProcessResult {
  readonly command: string;
  readonly args: readonly string[];
  /** Null where a signal ended it. */
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly timedOut: boolean;
  /** Standard output, at most `maxOutput` bytes from its start. */
  readonly stdout: string;
  /** The end of standard error, at most `maxOutput` bytes. */
  readonly stderr: string;
  readonly durationMs: number;
}

export interface ProcessOptions {
  /** The whole environment; nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** What the program reads on standard input; nothing where absent. */
  readonly input?: Uint8Array;
  /** Bytes kept of each stream. */
  readonly maxOutput?: number;
  /** Called with every line of standard error as it comes. */
  readonly onErrorLine?: (line: string) => void;
  /** Send standard output where standard error goes, so that the lines keep their order. */
  readonly mergeOutput?: boolean;
}

const DEFAULT_MAX_OUTPUT = 64 * 1024;
/** Time between the polite signal and the one that cannot be refused. */
const KILL_DELAY_MS = 5_000;

/**
 * Runs a program to its end in its own process group. Gives the result whatever the
 * exit code; throws TOOL_MISSING where it cannot be started and INTERRUPTED where
 * `signal` ended it. A time limit ends it with SIGTERM, then SIGKILL.
 */
export async function runProcess(
  command: string,
  args: readonly string[],
  options: ProcessOptions,
): Promise<ProcessResult> {
  if (options.signal?.aborted) throw new PullError("INTERRUPTED", `${command} was not started`);
  const started = performance.now();
  const maxOutput = options.maxOutput ?? DEFAULT_MAX_OUTPUT;
  const child = spawn(command, args, {
    env: options.env,
    stdio: ["pipe", "pipe", "pipe"],
    detached: true,
  });
  // A program that does not want its input closes it; how it ends tells the rest.
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input);
  let timedOut = false;
  let killTimer: NodeJS.Timeout | undefined;
  const killGroup = (signal: NodeJS.Signals): void => {
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, signal);
    } catch {
      // The group is gone already.
    }
  };
  const end = (): void => {
    killGroup("SIGTERM");
    killTimer ??= setTimeout(() => {
      killGroup("SIGKILL");
    }, KILL_DELAY_MS);
  };
  const timeout = setTimeout(() => {
    timedOut = true;
    end();
  }, options.timeoutMs);
  options.signal?.addEventListener("abort", end, { once: true });

  let stdout = "";
  let stderr = "";
  let line = "";
  const takeError = (text: string): void => {
    stderr = (stderr + text).slice(-maxOutput);
    if (!options.onErrorLine) return;
    const lines = (line + text).split("\n");
    line = lines.pop() ?? "";
    for (const whole of lines) options.onErrorLine(whole);
  };
  child.stdout.setEncoding("utf8");
  child.stderr.setEncoding("utf8");
  child.stdout.on("data", (text: string) => {
    if (options.mergeOutput) takeError(text);
    else if (stdout.length < maxOutput) stdout = (stdout + text).slice(0, maxOutput);
  });
  child.stderr.on("data", takeError);

  try {
    const [exitCode, signal] = await new Promise<[number | null, NodeJS.Signals | null]>(
      (resolve, reject) => {
        child.once("error", (cause: NodeJS.ErrnoException) => {
          reject(
            cause.code === "ENOENT"
              ? new PullError(
                  "TOOL_MISSING",
                  `expected the program ${command} on PATH, found none in ${options.env["PATH"] ?? "(no PATH)"}`,
                  { cause },
                )
              : cause,
          );
        });
        child.once("close", (code, name) => {
          resolve([code, name]);
        });
      },
    );
    if (line !== "") options.onErrorLine?.(line);
    if (options.signal?.aborted && exitCode !== 0) {
      throw new PullError("INTERRUPTED", `${command} was stopped before it was finished`);
    }
    const durationMs = performance.now() - started;
    return { command, args, exitCode, signal, timedOut, stdout, stderr, durationMs };
  } finally {
    clearTimeout(timeout);
    clearTimeout(killTimer);
    options.signal?.removeEventListener("abort", end);
  }
}

/** One line about a program that failed: how it ended and the last thing that it said. */
export function describeFailure(result: ProcessResult): string {
  const how = result.timedOut
    ? `did not finish within ${Math.round(result.durationMs / 1000)} s`
    : result.signal !== null
      ? `was ended by ${result.signal}`
      : `ended with exit code ${result.exitCode}`;
  const said = lastLines(result.stderr, 4).join(" | ");
  return `${result.command} ${how}${said === "" ? "" : `: ${said}`}`;
}

/** The last `count` lines that are not empty. */
export function lastLines(text: string, count: number): string[] {
  return text
    .split("\n")
    .map((line) => line.trimEnd())
    .filter((line) => line !== "")
    .slice(-count);
}

import { spawn } from "node:child_process";
import { StringDecoder } from "node:string_decoder";
import { PullError } from "../../core/errors.ts";

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
/** Time that output gets to arrive after the program's own end. */
const DRAIN_MS = 2_000;

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
  let drainTimer: NodeJS.Timeout | undefined;
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

  const output = new BoundedOutput(maxOutput);
  const errors = new BoundedOutput(maxOutput);
  const lines = options.onErrorLine ? new LineSplitter(options.onErrorLine, maxOutput) : null;
  const takeError = (chunk: Buffer): void => {
    errors.keepEnd(chunk);
    lines?.take(chunk);
  };
  child.stdout.on("data", (chunk: Buffer) => {
    if (options.mergeOutput) takeError(chunk);
    else output.keepStart(chunk);
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
        // A daemon that the program left behind may hold its output open for ever.
        child.once("exit", (code, name) => {
          drainTimer = setTimeout(() => {
            child.stdout.destroy();
            child.stderr.destroy();
            resolve([code, name]);
          }, DRAIN_MS);
        });
      },
    );
    lines?.end();
    if (options.signal?.aborted && exitCode !== 0) {
      throw new PullError("INTERRUPTED", `${command} was stopped before it was finished`);
    }
    const durationMs = performance.now() - started;
    const [stdout, stderr] = [output.text(), errors.text()];
    return { command, args, exitCode, signal, timedOut, stdout, stderr, durationMs };
  } finally {
    clearTimeout(drainTimer);
    clearTimeout(timeout);
    clearTimeout(killTimer);
    options.signal?.removeEventListener("abort", end);
  }
}

/** Output of which only so many bytes are kept, from its start or from its end. */
class BoundedOutput {
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #size = 0;
  #cutStart = false;
  #cutEnd = false;

  constructor(limit: number) {
    this.#limit = limit;
  }

  keepStart(chunk: Buffer): void {
    const room = this.#limit - this.#size;
    this.#cutEnd ||= chunk.length > room;
    if (room > 0) this.#add(chunk.subarray(0, room));
  }

  keepEnd(chunk: Buffer): void {
    this.#add(chunk);
    // Rarely, so that much output in small pieces is not copied again for each of them.
    if (this.#size > 2 * this.#limit) this.#cut();
  }

  /** A character that the limit cut in two is left out. */
  text(): string {
    this.#cut();
    let text = Buffer.concat(this.#chunks).toString("utf8");
    if (this.#cutStart) text = text.replace(/^\ufffd+/, "");
    if (this.#cutEnd) text = text.replace(/\ufffd+$/, "");
    return text;
  }

  #add(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
  }

  #cut(): void {
    if (this.#size <= this.#limit) return;
    this.#chunks = [Buffer.concat(this.#chunks).subarray(-this.#limit)];
    this.#size = this.#limit;
    this.#cutStart = true;
  }
}

/** Passes output on by lines; one that has no end comes in pieces of `limit` characters. */
class LineSplitter {
  readonly #decoder = new StringDecoder("utf8");
  readonly #onLine: (line: string) => void;
  readonly #limit: number;
  #rest = "";

  constructor(onLine: (line: string) => void, limit: number) {
    this.#onLine = onLine;
    this.#limit = limit;
  }

  take(chunk: Buffer): void {
    const lines = (this.#rest + this.#decoder.write(chunk)).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#pass(line);
    while (this.#rest.length > this.#limit) {
      this.#onLine(this.#rest.slice(0, this.#limit));
      this.#rest = this.#rest.slice(this.#limit);
    }
  }

  end(): void {
    if (this.#rest !== "") this.#pass(this.#rest);
    this.#rest = "";
  }

  #pass(line: string): void {
    for (let at = 0; at === 0 || at < line.length; at += this.#limit) {
      this.#onLine(line.slice(at, at + this.#limit));
    }
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

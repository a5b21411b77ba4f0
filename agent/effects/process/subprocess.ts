import { PassThrough, type Readable, type Writable } from "node:stream";
import { PullError } from "../../core/errors.ts";
import { ownActivity } from "./activity.ts";
import { BoundedOutput, LineSplitter, lastLines } from "./bounded-output.ts";
import { RunningProcess, type ProcessEnd, type StartOptions } from "./running-process.ts";

/** How a program ended, with all that a message about it needs. */
export interface ProcessResult extends ProcessEnd {
  readonly command: string;
  readonly args: readonly string[];
  /** Standard output, at most `maxOutput` bytes from its start. */
  readonly stdout: string;
  /** The end of standard error, at most `maxOutput` bytes. */
  readonly stderr: string;
  readonly durationMs: number;
}

/** How a program is run. */
export interface StreamOptions extends StartOptions {
  /** What the program reads on standard input; nothing if absent. */
  readonly input?: Uint8Array | AsyncIterable<Uint8Array>;
}

/** How a program is run whose output is kept. */
export interface ProcessOptions extends StreamOptions {
  /** Bytes kept of each stream. */
  readonly maxOutput?: number;
  /** Called with every line of standard error (with `mergeOutput`, of both) as it comes. */
  readonly onErrorLine?: (line: string) => void;
  /** Send standard output where standard error goes, so that the lines keep their order. */
  readonly mergeOutput?: boolean;
}

const DEFAULT_MAX_OUTPUT = 64 * 1024;

/** A program that ended with another exit code than 0; `message` has its last words. */
export class ProcessFailure extends Error {}

/**
 * Runs a program to its end in its own process group. Gives the result whatever the exit code
 * and also after the time limit. Throws TOOL_MISSING or the operating system's error if the
 * program cannot be started, INTERRUPTED if `signal` ended it, and what `input` threw.
 */
export async function runProcess(
  command: string,
  args: readonly string[],
  options: ProcessOptions,
): Promise<ProcessResult> {
  const output = new BoundedOutput(options.maxOutput ?? DEFAULT_MAX_OUTPUT);
  const { result, fed } = await supervise(command, args, options, {
    untilOutputEnds: false,
    async read({ stdout, takeError }) {
      stdout?.on("data", (chunk: Buffer) => {
        if (options.mergeOutput) takeError(chunk);
        else output.keepStart(chunk);
      });
    },
  });
  if (options.signal?.aborted && result.exitCode !== 0) throw interrupted(command);
  if ("error" in fed) throw fed.error;
  return { ...result, stdout: output.text() };
}

/**
 * Runs a program as a link of a chain: feeds it `input` as fast as it reads, gives its standard
 * output to `consume`, and returns what `consume` returns. If one of the two fails, the program
 * is killed. Throws TOOL_MISSING, TOOL_TIMEOUT, INTERRUPTED, what `input` or `consume` threw, or
 * a ProcessFailure if the program failed.
 */
export async function streamProcess<T>(
  command: string,
  args: readonly string[],
  options: StreamOptions,
  consume: (output: AsyncIterable<Buffer>) => Promise<T>,
): Promise<T> {
  const { result, fed, consumed } = await supervise(command, args, options, {
    untilOutputEnds: true,
    read: ({ stdout }) => consumeAll(stdout, consume),
  });
  if (options.signal?.aborted) throw interrupted(command);
  if (result.timedOut) {
    const seconds = Math.round(options.timeoutMs / 1000);
    throw new PullError("TOOL_TIMEOUT", `${command} did not finish within ${seconds} s`);
  }
  if ("error" in fed) throw fed.error;
  if ("error" in consumed) throw consumed.error;
  if (result.exitCode !== 0) throw new ProcessFailure(describeFailure(result));
  return consumed.value;
}

/** For `consume` of `streamProcess`, if nobody needs what is on standard output. */
export async function drain(output: AsyncIterable<Buffer>): Promise<void> {
  for await (const _ of output);
}

/** One line about a program that failed: how it ended, and the last lines that it printed. */
export function describeFailure(result: Omit<ProcessResult, "stdout">): string {
  const how = result.timedOut
    ? `did not finish within ${Math.round(result.durationMs / 1000)} s`
    : result.signal !== null
      ? `was ended by ${result.signal}`
      : `ended with exit code ${result.exitCode}`;
  const said = lastLines(result.stderr, 4).join(" | ");
  return `${result.command} ${how}${said === "" ? "" : `: ${said}`}`;
}

type Outcome<T> = { readonly value: T } | { readonly error: unknown };

/** Who reads a program's output. */
interface OutputReader<T> {
  /** Wait for the end of the output; otherwise only for a while after the program's end. */
  readonly untilOutputEnds: boolean;
  /**
   * Begins to read at once: Node discards output that nobody has begun to read when the program
   * ends. `stdout` is null if the program did not start; `takeError` adds to standard error.
   */
  readonly read: (program: {
    readonly stdout: Readable | null;
    readonly takeError: (chunk: Buffer) => void;
  }) => Promise<T>;
}

/** The one way in which programs are run. Throws only if the program cannot be started. */
async function supervise<T>(
  command: string,
  args: readonly string[],
  options: ProcessOptions,
  reader: OutputReader<T>,
): Promise<{
  readonly result: Omit<ProcessResult, "stdout">;
  readonly fed: Outcome<void>;
  readonly consumed: Outcome<T>;
}> {
  const started = performance.now();
  const maxOutput = options.maxOutput ?? DEFAULT_MAX_OUTPUT;
  const program = new RunningProcess(command, args, options);
  const errors = new BoundedOutput(maxOutput);
  const lines = options.onErrorLine ? new LineSplitter(options.onErrorLine, maxOutput) : null;
  const takeError = (chunk: Buffer): void => {
    errors.keepEnd(chunk);
    lines?.take(chunk);
  };
  program.stderr?.on("data", takeError);
  const orKill = <V>(work: Promise<V>): Promise<Outcome<V>> =>
    work.then(
      (value) => ({ value }),
      (error: unknown) => {
        program.kill();
        return { error };
      },
    );
  const work = (): Promise<[Outcome<ProcessEnd>, Outcome<void>, Outcome<T>]> =>
    Promise.all([
      program.ended(reader).then(
        (value) => ({ value }),
        (error: unknown) => ({ error }),
      ),
      orKill(feed(program.stdin, options.input)),
      orKill(reader.read({ stdout: program.stdout, takeError })),
    ]);
  // A program may be silent for as long as it may run.
  const [end, fed, consumed] = await ownActivity.during(options.timeoutMs, work);
  if ("error" in end) throw end.error;
  lines?.end();
  const durationMs = performance.now() - started;
  const result = { command, args, ...end.value, stderr: errors.text(), durationMs };
  return { result, fed, consumed };
}

function interrupted(command: string): PullError {
  return new PullError("INTERRUPTED", `${command} was stopped before it was finished`);
}

/** Gives standard output to `consume`, and discards what that leaves unread. */
async function consumeAll<T>(
  stdout: Readable | null,
  consume: (output: AsyncIterable<Buffer>) => Promise<T>,
): Promise<T> {
  const output = new PassThrough();
  output.on("error", () => undefined);
  if (stdout) {
    stdout.pipe(output);
    stdout.once("close", () => {
      // Closed before its end: the reader must not wait for more.
      if (!stdout.readableEnded) output.destroy(new Error("the output was cut off"));
    });
  } else {
    output.end();
  }
  try {
    return await consume(output as AsyncIterable<Buffer>);
  } finally {
    stdout?.unpipe(output);
    stdout?.resume();
  }
}

/** Writes no faster than the program reads, and ends quietly when it stops reading. */
async function feed(stdin: Writable | null, input: ProcessOptions["input"]): Promise<void> {
  if (!stdin) return;
  const reader = { gone: false };
  let wake = (): void => undefined;
  // A program that does not want its input closes it. That is no error by itself.
  for (const event of ["close", "error"] as const) {
    stdin.on(event, () => {
      reader.gone = true;
      wake();
    });
  }
  stdin.on("drain", () => {
    wake();
  });
  try {
    for await (const piece of input instanceof Uint8Array ? [input] : (input ?? [])) {
      if (reader.gone || stdin.destroyed) break;
      if (stdin.write(piece)) continue;
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (reader.gone || stdin.destroyed) resolve();
      });
    }
  } finally {
    stdin.end();
  }
}

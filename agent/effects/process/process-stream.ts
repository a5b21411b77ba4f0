import { spawn } from "node:child_process";
import { PassThrough } from "node:stream";
import { PullError } from "../../core/errors.ts";

/** How a program is run as a link in a chain. */
export interface StreamOptions {
  /** The whole environment; nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** What the program reads on standard input; nothing where absent. */
  readonly input?: AsyncIterable<Uint8Array>;
}

/** Bytes kept of what a program says on standard error. */
const MAX_ERRORS = 4 * 1024;

/** A program that ended otherwise than with 0; `message` has its last words. */
export class ProcessFailure extends Error {}

/**
 * Runs a program in its own process group, feeds it `input` as fast as it reads, and
 * gives its standard output to `consume`, whose result is the call's. Whatever ends
 * early, everything is ended. Throws TOOL_MISSING, TOOL_TIMEOUT, INTERRUPTED, what
 * `input` or `consume` threw, or a ProcessFailure where the program failed.
 */
export async function streamProcess<T>(
  command: string,
  args: readonly string[],
  options: StreamOptions,
  consume: (output: AsyncIterable<Buffer>) => Promise<T>,
): Promise<T> {
  if (options.signal?.aborted) throw new PullError("INTERRUPTED", `${command} was not started`);
  const child = spawn(command, args, {
    env: options.env,
    stdio: ["pipe", "pipe", "pipe"],
    detached: true,
  });
  const limit = { passed: false };
  const kill = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // The group is gone already.
    }
  };
  const timer = setTimeout(() => {
    limit.passed = true;
    kill();
  }, options.timeoutMs);
  options.signal?.addEventListener("abort", kill, { once: true });
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => {
    errors = (errors + chunk.toString("utf8")).slice(-MAX_ERRORS);
  });
  const ended = new Promise<{ code: number | null; cause?: NodeJS.ErrnoException }>((resolve) => {
    child.once("error", (cause: NodeJS.ErrnoException) => {
      resolve({ code: null, cause });
    });
    child.once("close", (code) => {
      resolve({ code });
    });
  });
  // A program that does not want its input closes it; how it ends tells the rest.
  child.stdin.on("error", () => undefined);
  const feeding = feed(child.stdin, options.input).catch((error: unknown) => {
    kill();
    return { error };
  });
  try {
    // Read from the first moment on: when a program ends, Node throws away what nobody has
    // begun to read.
    const output = child.stdout.pipe(new PassThrough());
    const consuming = consume(output as AsyncIterable<Buffer>).then(
      (value) => ({ value }),
      (error: unknown) => {
        kill();
        return { error };
      },
    );
    const [result, fed, { code, cause }] = await Promise.all([consuming, feeding, ended]);
    if (cause?.code === "ENOENT") {
      throw new PullError(
        "TOOL_MISSING",
        `expected the program ${command} on PATH, found none in ${options.env["PATH"] ?? "(no PATH)"}`,
        { cause },
      );
    }
    if (cause) throw cause;
    if (options.signal?.aborted) {
      throw new PullError("INTERRUPTED", `${command} was stopped before it was finished`);
    }
    if (limit.passed) {
      throw new PullError(
        "TOOL_TIMEOUT",
        `${command} did not finish within ${Math.round(options.timeoutMs / 1000)} s`,
      );
    }
    if (fed) throw fed.error;
    if ("error" in result) throw result.error;
    if (code !== 0) {
      const said = errors.trim().split("\n").slice(-2).join(" | ");
      throw new ProcessFailure(`${command} ended with exit code ${code}: ${said}`);
    }
    return result.value;
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", kill);
    kill();
  }
}

/** For `consume`, where nothing on standard output is of interest. */
export async function drain(output: AsyncIterable<Buffer>): Promise<void> {
  for await (const _ of output);
}

/** Writes no faster than the program reads; ends quietly where it stops reading. */
async function feed(
  stdin: NodeJS.WritableStream & { readonly destroyed: boolean },
  input: AsyncIterable<Uint8Array> | undefined,
): Promise<null> {
  const reader = { gone: false };
  let wake = (): void => undefined;
  for (const event of ["close", "error"] as const) {
    stdin.once(event, () => {
      reader.gone = true;
      wake();
    });
  }
  stdin.on("drain", () => {
    wake();
  });
  try {
    for await (const piece of input ?? []) {
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
  return null;
}

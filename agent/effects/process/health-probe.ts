import { connect } from "node:net";
import { request } from "undici";
import { parseDuration } from "../../core/text/duration.ts";
import { PullError } from "../../core/errors.ts";
import { sanitize } from "../../core/text/sanitize.ts";
import { CheckFailure } from "../../core/update/check-failure.ts";
import type { HealthCheck } from "../../core/formats/health-check.ts";
import type { HealthProbe } from "../../core/ports.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { lastLines } from "./bounded-output.ts";
import { describeFailure, runProcess, type ProcessResult } from "./subprocess.ts";

/** Lines of each of standard output and standard error that are kept of a command that failed. */
const KEPT_LINES = 10;
/** Longest message: a single line that a command printed may be of any length. */
const MAX_MESSAGE = 1_000;

/** A command that ended otherwise than with exit code 0. */
class CommandFailure extends Error {
  readonly lines: readonly string[];

  constructor(result: ProcessResult) {
    super(describeFailure(result));
    this.lines = [...lastLines(result.stdout, KEPT_LINES), ...lastLines(result.stderr, KEPT_LINES)];
  }
}

/** Runs a check against this machine as it is now. */
export const systemProbe: HealthProbe = async (check, signal) => {
  const timeoutMs = parseDuration(check.timeout) ?? 10_000;
  const timeout = AbortSignal.timeout(timeoutMs);
  const either = signal ? AbortSignal.any([signal, timeout]) : timeout;
  try {
    await probe(check, either, timeoutMs);
  } catch (cause) {
    if (signal?.aborted) throw new PullError("INTERRUPTED", "stopped while checking", { cause });
    const why = timeout.aborted ? `no answer within ${check.timeout}` : (cause as Error).message;
    const message = sanitize(`check ${JSON.stringify(check.name)}: ${why}`, MAX_MESSAGE);
    const lines = cause instanceof CommandFailure ? cause.lines : [];
    throw new CheckFailure(message, lines, { cause });
  }
};

async function probe(check: HealthCheck, signal: AbortSignal, timeoutMs: number): Promise<void> {
  switch (check.kind) {
    case "command": {
      const [program = "", ...args] = check.command;
      const result = await runProcess(program, args, {
        env: childEnvironment(),
        timeoutMs,
        signal,
      });
      if (result.exitCode !== 0) throw new CommandFailure(result);
      return;
    }
    case "http": {
      const response = await request(check.url, { signal });
      await response.body.dump({ limit: 64 * 1024 }).catch(() => undefined);
      if (response.statusCode !== check.status) {
        throw new Error(
          `${check.url}: expected HTTP ${check.status}, found ${response.statusCode}`,
        );
      }
      return;
    }
    case "tcp":
      await new Promise<void>((resolve, reject) => {
        const socket = connect({ host: check.host, port: check.port, signal });
        socket.once("connect", () => {
          socket.destroy();
          resolve();
        });
        socket.once("error", reject);
      });
      return;
    default:
      check satisfies never;
  }
}

import { connect } from "node:net";
import { request } from "undici";
import { parseDuration } from "../../core/text/duration.ts";
import { PullError } from "../../core/errors.ts";
import type { HealthCheck } from "../../core/formats/health-check.ts";
import type { HealthProbe } from "../../core/ports.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { describeFailure, runProcess } from "./subprocess.ts";

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
    throw new PullError("HEALTH_FAILED", `check ${JSON.stringify(check.name)}: ${why}`, { cause });
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
      if (result.exitCode !== 0) throw new Error(describeFailure(result));
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

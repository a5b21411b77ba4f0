import { PullError } from "../../core/errors.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { describeFailure, runProcess, type ProcessResult } from "../process/subprocess.ts";

/** systemd's own default for a job is 90 seconds; a program that takes longer is stuck. */
const TIMEOUT_MS = 120_000;

/** Runs a program of systemd; gives the result whatever the exit code. */
export function systemd(
  program: "systemctl" | "systemd-run" | "journalctl",
  ...args: readonly string[]
): Promise<ProcessResult> {
  return runProcess(program, args, {
    env: childEnvironment(),
    timeoutMs: TIMEOUT_MS,
    maxOutput: 1024 * 1024,
  });
}

/** The same. Throws TOOL_TIMEOUT or IO_FAILED unless it succeeds. */
export async function systemdOrThrow(
  program: "systemctl" | "systemd-run",
  ...args: readonly string[]
): Promise<ProcessResult> {
  const result = await systemd(program, ...args);
  if (result.exitCode !== 0) {
    throw new PullError(result.timedOut ? "TOOL_TIMEOUT" : "IO_FAILED", describeFailure(result));
  }
  return result;
}

/** Properties of a unit (`systemctl show`), or null if systemd does not answer. */
export async function unitProperties(
  unit: string,
  ...names: readonly string[]
): Promise<ReadonlyMap<string, string> | null> {
  const result = await systemd("systemctl", "show", unit, `--property=${names.join(",")}`);
  if (result.exitCode !== 0) return null;
  return new Map(
    result.stdout.split("\n").flatMap((line) => {
      const equals = line.indexOf("=");
      return equals < 0 ? [] : [[line.slice(0, equals), line.slice(equals + 1)] as const];
    }),
  );
}

/** Removes what is left of a unit: stops it and forgets that it failed. */
export async function clearUnit(unit: string): Promise<void> {
  await systemd("systemctl", "stop", unit);
  await systemd("systemctl", "reset-failed", unit);
}

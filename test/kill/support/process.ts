import { fileURLToPath } from "node:url";
import { runProcess, type ProcessResult } from "../../../agent/effects/process/subprocess.ts";
import { testEnvironment } from "../../support/nixos-pull.ts";

const BUNDLE = fileURLToPath(new URL("../../../dist/nixos-pull.cjs", import.meta.url));
const CRASH_POINTS = new URL("crash-points.mjs", import.meta.url).href;
/** Longer than any run, other than one that hangs. */
const TIMEOUT_MS = 240_000;

/** Runs a bundle, the shipped one by default; with `crash`, under crash-points.mjs with these variables. */
export function runAgent(
  args: readonly string[],
  crash: Readonly<Record<string, string>> | null = null,
  bundle = BUNDLE,
): Promise<ProcessResult> {
  const preload = crash === null ? [] : ["--import", CRASH_POINTS];
  return runProcess(process.execPath, [...preload, bundle, ...args], {
    env: { ...testEnvironment(), ...crash },
    timeoutMs: TIMEOUT_MS,
  });
}

/** Runs the bundle where it has to succeed; gives what it printed. */
export async function runBundle(...args: string[]): Promise<string> {
  return succeeded(await runAgent(args));
}

/** Runs any program where it has to succeed; gives what it printed. */
export async function runTool(program: string, ...args: string[]): Promise<string> {
  return succeeded(
    await runProcess(program, args, { env: testEnvironment(), timeoutMs: TIMEOUT_MS }),
  );
}

function succeeded(result: ProcessResult): string {
  if (result.exitCode === 0) return result.stdout;
  throw new Error(`${result.command} ${result.args.join(" ")}: ${result.stderr}`);
}

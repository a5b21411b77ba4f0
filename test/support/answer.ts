import type { ErrorCode } from "../../agent/core/errors.ts";
import type { SandboxHost } from "./sandbox.ts";

/** What a host command prints with `--json`, as far as tests read it. */
export interface Answer {
  readonly exitCode: number | null;
  readonly updated: boolean;
  readonly decision: string | null;
  readonly reason?: { readonly code: ErrorCode; readonly message: string };
  readonly error: { readonly code: ErrorCode; readonly message: string } | null;
  readonly release: { readonly sequence: number; readonly toplevel: string } | null;
  readonly mirrors: readonly {
    readonly mirror: string;
    readonly code?: ErrorCode;
    readonly message?: string;
    readonly sequence?: number;
    readonly unchanged: boolean;
  }[];
  readonly state: { readonly name: string; readonly attempts?: number };
  readonly committed: {
    readonly sequence: number;
    readonly toplevel: string;
  } | null;
  readonly pendingReboot: { readonly release: { readonly sequence: number } } | null;
  readonly preview: {
    readonly paths: number;
    readonly newPaths: number;
    readonly downloadBytes: number;
    readonly storeBytes: number;
  } | null;
}

/** Runs a host command with `--json`; gives its answer and its exit code. */
export async function answerOf(
  host: SandboxHost,
  command: "apply" | "check",
  ...args: string[]
): Promise<Answer> {
  return jsonOf<Answer>(host, command, ...args);
}

/** The same for commands that print something else. */
export async function jsonOf<T>(host: SandboxHost, command: string, ...args: string[]): Promise<T> {
  const { exitCode, stdout, stderr } = await host.run(command, "--json", ...args);
  if (stdout === "") throw new Error(`${command} printed nothing: ${stderr}`);
  return { ...(JSON.parse(stdout) as T), exitCode };
}

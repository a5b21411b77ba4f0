import { spawn, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import { expectDocumentedJson } from "./output-schema.ts";

const BUNDLE = fileURLToPath(new URL("../../dist/nixos-pull.cjs", import.meta.url));

export interface CommandOutput {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A `nixos-pull` process. */
export interface RunningCommand {
  readonly child: ChildProcess;
  /** Everything printed to standard error until now. */
  stderr(): string;
  /** Waits until standard error holds `text`; rejects where the process ends first. */
  sees(text: string): Promise<void>;
  /** Rejects if it printed JSON that is not as its schema says. */
  readonly ended: Promise<CommandOutput>;
}

/** Settings of Nix that suit every machine on which tests run. */
const NIX_CONF = fileURLToPath(new URL("../closures/nix.conf", import.meta.url));

/** Environment of test processes: real tools, no network for Nix. */
export function testEnvironment(): Record<string, string> {
  return {
    PATH: process.env["PATH"] ?? "",
    HOME: process.env["HOME"] ?? "/root",
    NIX_USER_CONF_FILES: NIX_CONF,
  };
}

/** Starts the shipped bundle; it is killed with the test. */
export function startCommand(
  args: readonly string[],
  env: Record<string, string> = {},
): RunningCommand {
  const child = spawn(process.execPath, [BUNDLE, ...args], {
    env: { ...testEnvironment(), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  const watchers = new Set<() => void>();
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
    for (const watcher of watchers) watcher();
  });
  const closed = new Promise<CommandOutput>((resolve) => {
    child.once("close", (exitCode) => {
      resolve({ exitCode, stdout, stderr });
    });
  });
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await closed;
  });
  return {
    child,
    stderr: () => stderr,
    get ended() {
      return closed.then((output) => {
        expectDocumentedJson(args, output);
        return output;
      });
    },
    sees: (text) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (!stderr.includes(text)) return;
          watchers.delete(look);
          resolve();
        };
        watchers.add(look);
        void closed.then(() => {
          reject(new Error(`ended without ${JSON.stringify(text)}:\n${stderr}`));
        });
        look();
      }),
  };
}

/** Runs the shipped bundle to its end. */
export function nixosPull(
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<CommandOutput> {
  return startCommand(args, env).ended;
}

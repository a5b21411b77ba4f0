import { fileURLToPath } from "node:url";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { testEnvironment } from "./nixos-pull.ts";

export const SYSTEM_FILE = fileURLToPath(new URL("../closures/system.nix", import.meta.url));

/** Arguments of test/closures/system.nix. */
export interface SystemOptions {
  readonly name?: string;
  readonly generation?: string;
  readonly hostname?: string;
  readonly agent?: boolean;
  readonly specialisation?: string;
  readonly platform?: string;
  readonly exitCode?: number;
  readonly seconds?: number;
  readonly payloadBytes?: number;
  readonly parts?: number;
  readonly partBytes?: number;
  readonly salt?: string;
}

/** Builds a system with real Nix; gives its store path. */
export async function buildSystem(
  options: SystemOptions = {},
  attribute = "system",
): Promise<string> {
  const args = Object.entries(options).flatMap(([name, value]) =>
    typeof value === "string" ? ["--argstr", name, value] : ["--arg", name, String(value)],
  );
  const result = await runProcess(
    "nix-build",
    [SYSTEM_FILE, "-A", attribute, "--no-out-link", ...args],
    { env: testEnvironment(), timeoutMs: 120_000 },
  );
  if (result.exitCode !== 0) throw new Error(result.stderr);
  return result.stdout.trim();
}

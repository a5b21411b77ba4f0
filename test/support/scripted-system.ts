import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { testEnvironment } from "./nixos-pull.ts";
import type { SandboxHost } from "./sandbox.ts";

export const SCRIPTED_SYSTEM_FILE = fileURLToPath(new URL("scripted-system.nix", import.meta.url));

/** Builds test/support/scripted-system.nix; gives its store path. */
export async function buildScriptedSystem(
  generation: string,
  { name = "web1", payloadBytes = 0 } = {},
): Promise<string> {
  const result = await runProcess(
    "nix-build",
    [
      ...[SCRIPTED_SYSTEM_FILE, "--no-out-link"],
      ...["--argstr", "generation", generation, "--argstr", "name", name],
      ...["--arg", "payloadBytes", String(payloadBytes)],
    ],
    { env: testEnvironment(), timeoutMs: 120_000 },
  );
  if (result.exitCode !== 0) throw new Error(result.stderr);
  return result.stdout.trim();
}

/** What a host's switch log shows of a release in mode `switch`: it is proven, then committed. */
export function runsOf(...toplevels: string[]): string[] {
  return toplevels.flatMap((toplevel) => [`test ${toplevel}`, `boot ${toplevel}`]);
}

/** What a host's switch-to-configuration does from now on, in shell. */
export async function hookSwitches(host: SandboxHost, script: string): Promise<void> {
  await writeFile(join(host.root, "switch-hook"), `${script}\n`);
}

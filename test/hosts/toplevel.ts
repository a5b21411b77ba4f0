import { fileURLToPath } from "node:url";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { testEnvironment } from "../support/nixos-pull.ts";

const TOPLEVEL_FILE = fileURLToPath(new URL("toplevel.nix", import.meta.url));

/** Arguments of test/hosts/toplevel.nix, which says what each is. */
export interface ToplevelOptions {
  readonly name?: string;
  readonly generation?: string;
  readonly units?: Readonly<Record<string, string>>;
  readonly agent?: "normal" | "changed" | "removed" | "broken";
  readonly agentUnit?: string;
  readonly agentUnits?: Readonly<Record<string, string>>;
  /** Becomes the JSON text of etc/nixos-pull/config.json. */
  readonly agentConfig?: unknown;
  /** Path of the agent's bundle; dist/nixos-pull.cjs where absent. */
  readonly bundle?: string;
  readonly kernel?: string;
  readonly initrd?: string;
  readonly kernelModules?: string;
  readonly initInterface?: string;
  readonly checkFails?: boolean;
  readonly bootLoaderFails?: boolean;
  readonly activateFails?: boolean;
  readonly bootFails?: boolean;
  readonly switchSleep?: number;
  readonly switchSleepAt?: "started" | "stopped" | "activated";
  readonly cutNetwork?: boolean;
  readonly activationScript?: string;
  readonly payloadBytes?: number;
}

/** Builds a system for a test host with real Nix, in this machine's store; gives its path. */
export async function buildToplevel(
  { agentConfig, ...options }: ToplevelOptions = {},
  attribute: "system" | "package" = "system",
): Promise<string> {
  const json = JSON.stringify({
    ...options,
    ...(agentConfig === undefined ? {} : { agentConfig: JSON.stringify(agentConfig, null, 2) }),
  });
  const result = await runProcess(
    "nix-build",
    [
      ...["--expr", `{ json }: import ${TOPLEVEL_FILE} (builtins.fromJSON json)`],
      ...["--argstr", "json", json, "--attr", attribute, "--no-out-link"],
    ],
    { env: testEnvironment(), timeoutMs: 120_000 },
  );
  if (result.exitCode !== 0) throw new Error(result.stderr);
  return result.stdout.trim();
}

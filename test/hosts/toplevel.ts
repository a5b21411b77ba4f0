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
  readonly grub?: boolean;
  readonly bootLoaderInstaller?: string;
  readonly checkFails?: boolean;
  readonly bootLoaderFails?: boolean;
  readonly activateFails?: boolean;
  readonly inhibitors?: Readonly<Record<string, string>>;
  readonly switchEra?: "24.11" | "26.11";
  readonly switchDiesAt?: "started" | "stopped" | "activated" | "restarted";
  readonly switchDiesWith?: number;
  readonly bootFails?: boolean;
  readonly switchSleep?: number;
  readonly switchSleepAt?: "started" | "stopped" | "activated";
  readonly cutNetwork?: boolean;
  readonly activationScript?: string;
  readonly payloadBytes?: number;
}

/**
 * A real switch-to-configuration-ng to switch with in place of the stand-in, for people who
 * have one (test/README.md).
 */
export const REAL_SWITCH = process.env["NIXOS_PULL_SWITCH"];

/** Builds a system for a test host with real Nix, in this machine's store; gives its path. */
export async function buildToplevel(
  { agentConfig, ...options }: ToplevelOptions = {},
  attribute: "system" | "package" = "system",
): Promise<string> {
  const json = JSON.stringify({
    ...options,
    ...(REAL_SWITCH !== undefined && { switchProgram: REAL_SWITCH }),
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

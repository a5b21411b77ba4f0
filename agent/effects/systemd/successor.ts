import { readFile, realpath } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import { sha256Hex } from "../../core/formats/sha256.ts";
import type { NixStore, Successor } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { exists, ifMissing } from "../files/missing-file.ts";
import { AGENT_UNIT } from "./service-manager.ts";
import { describeFailure, runProcess } from "../process/subprocess.ts";
import { systemd } from "./systemctl.ts";

/** Path of the agent's program in a system. */
const PROGRAM = "sw/bin/nixos-pull";

/**
 * Time that the new agent gets to check its configuration. A small machine that is busy may take a
 * minute to start a program, and that is not the release's fault.
 */
const PROOF_MS = 5 * 60_000;

/** The agent that systemd would start now. */
interface Installed {
  /** Program, configuration and unit, as one text to compare. */
  readonly identity: string;
  readonly hasUnit: boolean;
}

/**
 * Watches which agent the running system would start: its program, configuration and unit.
 * The NixOS module never restarts the agent during a switch, because the agent itself runs the
 * switch. So the agent looks afterwards whether it changed.
 */
export function successorOf(
  settings: Settings,
  options: { configFile: string; store: Pick<NixStore, "realPath">; managed: boolean },
): Successor {
  const look = (): Promise<Installed> =>
    installedAgent(settings.paths.currentSystem, options.configFile, options.managed);
  let first: Installed | null = null;
  return {
    async look() {
      const now = await look();
      first ??= now;
      return { differs: now.identity !== first.identity, hasUnit: now.hasUnit };
    },
    async prove(toplevel, signal) {
      // A sandbox's system is not what starts agents here.
      if (!options.managed) return true;
      const program = join(options.store.realPath(toplevel), PROGRAM);
      const found = await ifMissing(realpath(program), null);
      if (found === null) return false;
      // The configuration that comes with the system, if that has one for the agent.
      const config = join(options.store.realPath(toplevel), "etc/nixos-pull/config.json");
      const isThere = await exists(config).catch(() => false);
      const result = await runProcess(found, ["config", ...(isThere ? ["--config", config] : [])], {
        env: childEnvironment(),
        timeoutMs: PROOF_MS,
        signal,
      });
      if (result.exitCode === 0) return true;
      if (result.timedOut) {
        // A host that is slow is slow with any agent.
        throw new PullError("TOOL_TIMEOUT", `the new system's agent: ${describeFailure(result)}`);
      }
      throw new PullError("HEALTH_FAILED", `the new system's agent: ${describeFailure(result)}`);
    },
  };
}

async function installedAgent(
  currentSystem: string,
  configFile: string,
  managed: boolean,
): Promise<Installed> {
  const program = await realpath(join(currentSystem, PROGRAM)).catch(() => "none");
  const config = await readFile(configFile).catch(() => Buffer.alloc(0));
  const unit = managed ? await systemd("systemctl", "cat", AGENT_UNIT) : null;
  const hasUnit = unit?.exitCode === 0;
  const hash = sha256Hex(config, hasUnit ? unit.stdout : "");
  return { identity: `${program} ${hash}`, hasUnit };
}

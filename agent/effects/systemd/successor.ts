import { createHash } from "node:crypto";
import { access, readFile, realpath } from "node:fs/promises";
import { join } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { NixStore, Successor } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { childEnvironment } from "../nix/nix-environment.ts";
import { isNotFound } from "../files/durable-file.ts";
import { AGENT_UNIT } from "./service-manager.ts";
import { describeFailure, runProcess } from "../process/subprocess.ts";
import { systemd } from "./systemctl.ts";

/** Where a system has the agent's program. */
const PROGRAM = "sw/bin/nixos-pull";

/** How long the new agent may take to look at its configuration. */
const PROOF_MS = 60_000;

/** What a host that systemd manages would start as the agent now. */
interface Installed {
  /** Program, configuration and unit, as one text to compare. */
  readonly identity: string;
  readonly hasUnit: boolean;
}

/**
 * Watches what the running system would start as the agent: its program, configuration
 * and unit. The NixOS module never restarts the agent in a switch, which the agent
 * itself may be running, so the agent looks afterwards whether it changed.
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
      const found = await realpath(program).catch((error: unknown) => {
        if (isNotFound(error)) return null;
        throw error;
      });
      if (found === null) return false;
      // The configuration that comes with the system, where it is the agent's own.
      const config = join(options.store.realPath(toplevel), "etc/nixos-pull/config.json");
      const isThere = await access(config).then(
        () => true,
        () => false,
      );
      const result = await runProcess(found, ["config", ...(isThere ? ["--config", config] : [])], {
        env: childEnvironment(),
        timeoutMs: PROOF_MS,
        signal,
      });
      if (result.exitCode === 0) return true;
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
  const hash = createHash("sha256").update(config);
  if (unit?.exitCode === 0) hash.update(unit.stdout);
  return { identity: `${program} ${hash.digest("hex")}`, hasUnit: unit?.exitCode === 0 };
}

import { createHash } from "node:crypto";
import { readFile, realpath } from "node:fs/promises";
import { join } from "node:path";

/**
 * What the running system would start as the agent now: its program and configuration,
 * as one text to compare. The NixOS module never restarts the agent in a switch, which
 * the agent itself may be running, so the agent looks afterwards whether it changed.
 */
export async function installedAgent(currentSystem: string, configFile: string): Promise<string> {
  const program = await realpath(join(currentSystem, "sw/bin/nixos-pull")).catch(() => "none");
  const config = await readFile(configFile).catch(() => Buffer.alloc(0));
  return `${program} ${createHash("sha256").update(config).digest("hex")}`;
}

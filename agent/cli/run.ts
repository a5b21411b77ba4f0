import { composeTools } from "../app/compose.ts";
import { runDaemon } from "../app/daemon.ts";
import { EXIT } from "../core/errors.ts";
import { createLog } from "../effects/log.ts";
import type { CommandContext, CommandResult, HostOptions } from "./command.ts";
import { loadSettings } from "./configuration.ts";

/** `nixos-pull run`: the agent. */
export async function run(options: HostOptions, { signal }: CommandContext): CommandResult {
  const settings = await loadSettings(options.config);
  await runDaemon(composeTools(settings, createLog(settings.log)), signal);
  return EXIT.ok;
}

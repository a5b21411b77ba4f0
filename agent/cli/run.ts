import { composeTools } from "../host/compose.ts";
import { runDaemon } from "../host/daemon.ts";
import { EXIT } from "../core/errors.ts";
import { createLog } from "../effects/host/log.ts";
import type { CommandContext, CommandResult, HostOptions } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";

/** `nixos-pull run`: the agent. */
export async function run(options: HostOptions, { signal }: CommandContext): CommandResult {
  const settings = await loadSettings(options.config);
  const { config: configFile } = options;
  const tools = composeTools(settings, createLog(settings.log), { configFile, isService: true });
  await runDaemon(tools, signal);
  return EXIT.ok;
}

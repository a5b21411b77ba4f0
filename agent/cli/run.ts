import { composeTools } from "../app/compose.ts";
import { runDaemon } from "../app/daemon.ts";
import { EXIT } from "../core/errors.ts";
import { DEFAULT_CONFIG_FILE } from "../core/settings.ts";
import { installedAgent } from "../effects/installed-agent.ts";
import { createLog } from "../effects/log.ts";
import type { CommandContext, CommandResult, HostOptions } from "./command.ts";
import { loadSettings } from "./configuration.ts";

/** `nixos-pull run`: the agent. */
export async function run(options: HostOptions, { signal }: CommandContext): CommandResult {
  const settings = await loadSettings(options.config);
  const installed = (): Promise<string> =>
    installedAgent(settings.paths.currentSystem, options.config ?? DEFAULT_CONFIG_FILE);
  const started = await installed();
  await runDaemon(
    composeTools(settings, createLog(settings.log)),
    signal,
    async () => (await installed()) !== started,
  );
  return EXIT.ok;
}

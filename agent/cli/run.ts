import { composeTools } from "../host/compose.ts";
import { runDaemon, type DaemonEnd } from "../host/daemon/daemon.ts";
import { EXIT } from "../core/errors.ts";
import { createLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";

function definition() {
  return hostCommand("run", "poll the mirrors and apply releases, as a service");
}

export const runCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(run(options, signal));
  });

/** `nixos-pull run`: the agent. */
async function run(options: OptionsOf<typeof definition>, signal: AbortSignal): CommandResult {
  const { config: configFile } = options;
  let end: DaemonEnd;
  do {
    const settings = await loadSettings(configFile);
    const tools = composeTools(settings, createLog(settings.log), { configFile, isService: true });
    end = await runDaemon(tools, signal);
  } while (end === "renamed");
  return EXIT.ok;
}

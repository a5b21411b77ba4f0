import { composeTools } from "../host/compose.ts";
import { unholdHost } from "../host/operator-commands.ts";
import { EXIT } from "../core/errors.ts";
import { createLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { printLine } from "./display/output.ts";

function definition() {
  return hostCommand("unhold", "end the hold of this host");
}

export const unholdCommand: CommandMaker = ({ finish }) =>
  definition().action((options) => {
    finish(unhold(options));
  });

/** `nixos-pull unhold`: ends a hold. */
async function unhold(options: OptionsOf<typeof definition>): CommandResult {
  const settings = await loadSettings(options.config);
  const ended = await unholdHost(composeTools(settings, createLog(settings.log, { byHand: true })));
  printLine(ended ? "This host is no longer held." : "This host was not held.");
  return EXIT.ok;
}

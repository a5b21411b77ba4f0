import { composeTools } from "../host/compose.ts";
import { passDeadline } from "../host/pass-deadline.ts";
import { EXIT } from "../core/errors.ts";
import { createLog } from "../effects/host/log.ts";
import { Command } from "@commander-js/extra-typings";
import type { CommandMaker, CommandResult, OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";

function definition() {
  return new Command("deadline")
    .description("roll back the release that was not committed in time")
    .requiredOption("-c, --config <file>", "the configuration of the agent that armed the timer")
    .requiredOption("--system <toplevel>", "the system that must be committed by now");
}

export const deadlineCommand: CommandMaker = ({ finish }) =>
  definition().action((options) => {
    finish(deadline(options));
  });

/** `nixos-pull deadline`: run by the timer that an activation starts, not by people. */
async function deadline(options: OptionsOf<typeof definition>): CommandResult {
  const settings = await loadSettings(options.config);
  await passDeadline(composeTools(settings, createLog(settings.log)), options.system);
  return EXIT.ok;
}

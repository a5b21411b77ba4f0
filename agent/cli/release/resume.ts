import { EXIT } from "../../core/errors.ts";
import { resumeRelease } from "../../operator/channel/change-release.ts";
import type { CommandMaker, CommandResult, OptionsOf } from "../command.ts";
import { printChanged } from "../display/published.ts";
import { changeCommand, changeOptions, channelOption } from "../options/change.ts";

function definition() {
  return changeCommand("resume", "let the rollout go on where it was paused")
    .addOption(channelOption())
    .option("--catch-up", "as if it had not been paused");
}

export const resumeCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(resume(options, signal));
  });

/** `nixos-pull release resume`: the rollout goes on. */
async function resume(options: OptionsOf<typeof definition>, signal: AbortSignal): CommandResult {
  const { catchUp = false } = options;
  printChanged(await resumeRelease(await changeOptions(options, signal), { catchUp }), options);
  return EXIT.ok;
}

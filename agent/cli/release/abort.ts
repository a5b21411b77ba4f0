import { EXIT } from "../../core/errors.ts";
import { abortRelease } from "../../operator/channel/abort-release.ts";
import type { CommandMaker, CommandResult, OptionsOf } from "../command.ts";
import { printChanged } from "../display/published.ts";
import { changeCommand, changeOptions, channelOption } from "../options/change.ts";
import { positive } from "../options/values.ts";

function definition() {
  return changeCommand("abort", "give every host the system of an earlier release, at once")
    .addOption(channelOption())
    .option("--to <sequence>", "that release (default: the last one with other systems)", positive);
}

export const abortCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(abort(options, signal));
  });

/** `nixos-pull release abort`: back to the systems of an earlier release. */
async function abort(options: OptionsOf<typeof definition>, signal: AbortSignal): CommandResult {
  const { to } = options;
  printChanged(await abortRelease(await changeOptions(options, signal), { to }), options);
  return EXIT.ok;
}

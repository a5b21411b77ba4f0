import { EXIT } from "../../core/errors.ts";
import { pauseRelease } from "../../operator/channel/change-release.ts";
import type { CommandMaker, CommandResult, OptionsOf } from "../command.ts";
import { printChanged } from "../display/published.ts";
import { reason } from "../options/values.ts";
import { changeCommand, changeOptions, channelOption } from "../options/change.ts";

function definition() {
  return changeCommand("pause", "stop the rollout: no more hosts begin")
    .addOption(channelOption())
    .argument("<reason>", "why, for people", reason);
}

export const pauseCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((why, options) => {
    finish(pause(why, options, signal));
  });

/** `nixos-pull release pause REASON`: no host begins from now on. */
async function pause(
  why: string,
  options: OptionsOf<typeof definition>,
  signal: AbortSignal,
): CommandResult {
  printChanged(await pauseRelease(await changeOptions(options, signal), why), options);
  return EXIT.ok;
}

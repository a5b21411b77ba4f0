import { EXIT } from "../../core/errors.ts";
import { promoteRelease } from "../../operator/channel/promote-release.ts";
import type { CommandMaker, CommandResult, OptionsOf } from "../command.ts";
import { printChanged } from "../display/published.ts";
import { changeCommand, changeOptions } from "../options/change.ts";
import { barrierRequest, rolloutRequest, withRollout } from "../options/rollout.ts";
import { channelName } from "../options/values.ts";

function definition() {
  return withRollout(
    changeCommand("promote", "make the release of one channel the next of another"),
  )
    .requiredOption("--from <channel>", "the channel whose release it is", channelName)
    .requiredOption("--to <channel>", "the channel that gets it", channelName)
    .option("--keep-hosts", "keep hosts of the other channel that the release does not name");
}

export const promoteCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(promote(options, signal));
  });

/** `nixos-pull release promote`: makes another channel's release the next one of this channel. */
async function promote(options: OptionsOf<typeof definition>, signal: AbortSignal): CommandResult {
  const { from, to: channel, keepHosts = false } = options;
  const change = await changeOptions({ ...options, channel }, signal);
  const policy = { rollout: rolloutRequest(options), barrier: barrierRequest(options) };
  printChanged(await promoteRelease(change, { from, keepHosts, ...policy }), options);
  return EXIT.ok;
}

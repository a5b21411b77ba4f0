import { EXIT, PullError } from "../../core/errors.ts";
import {
  ACTIVATION_MODES,
  reasonSchema,
  type ActivationMode,
} from "../../core/formats/manifest.ts";
import { editRelease } from "../../operator/channel/change-release.ts";
import { parseAssignment, parseGroups } from "../../operator/channel/rollout-request.ts";
import type { CommandMaker, CommandResult, OptionsOf } from "../command.ts";
import { printChanged } from "../display/published.ts";
import { changeCommand, changeOptions, channelOption } from "../options/change.ts";
import { barrierRequest, rolloutRequest, withRollout } from "../options/rollout.ts";
import { REASON_RULE, repeatable } from "../options/values.ts";

function definition() {
  return withRollout(changeCommand("edit", "change the policy of the release, not its systems"))
    .addOption(channelOption())
    .option("--everyone", "end the rollout: every host may go at once")
    .addOption(repeatable("--now <host>", "this host may go now, whatever the rollout says"))
    .addOption(repeatable("--hold <host=reason>", "hold this host, also in later releases"))
    .addOption(repeatable("--free <host>", "this host follows the rollout again"))
    .addOption(repeatable("--group <host=groups>", "groups of a host, instead of those it has"))
    .addOption(repeatable("--mode <host=mode>", "what this host does with it"))
    .addOption(repeatable("--remove <host>", "a host that the release no longer names"));
}

export const editCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(edit(options, signal));
  });

/** `nixos-pull release edit`: the same systems, another policy. */
async function edit(options: OptionsOf<typeof definition>, signal: AbortSignal): CommandResult {
  const rollout = rolloutRequest(options);
  if (options.everyone && Object.values(rollout).some((part) => part !== undefined)) {
    throw new PullError("USAGE", "expected no rollout with --everyone");
  }
  const policy = {
    ...rollout,
    everyone: options.everyone ?? false,
    now: options.now,
    hold: reasons(options.hold),
    free: options.free,
    groups: parseGroups(options.group),
    modes: modesOf(options.mode),
    remove: options.remove,
    barrier: barrierRequest(options),
  };
  printChanged(await editRelease(await changeOptions(options, signal), policy), options);
  return EXIT.ok;
}

function reasons(texts: readonly string[]): Map<string, string> {
  return new Map(
    texts.map((text) => {
      const { hostname, value } = parseAssignment(text, "--hold", "REASON");
      if (reasonSchema.safeParse(value).success) return [hostname, value];
      throw new PullError("USAGE", `--hold: ${hostname}: ${REASON_RULE}`);
    }),
  );
}

function modesOf(texts: readonly string[]): Map<string, ActivationMode> {
  return new Map(
    texts.map((text): [string, ActivationMode] => {
      const { hostname, value } = parseAssignment(text, "--mode", "MODE");
      const mode = ACTIVATION_MODES.find((known) => known === value);
      if (mode) return [hostname, mode];
      throw new PullError(
        "USAGE",
        `--mode: expected HOST=${ACTIVATION_MODES.join("|")}, found ${JSON.stringify(text)}`,
      );
    }),
  );
}

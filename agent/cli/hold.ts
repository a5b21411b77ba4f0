import { composeTools } from "../host/compose.ts";
import { holdHost } from "../host/operator-commands.ts";
import { EXIT, PullError } from "../core/errors.ts";
import { MAX_HOLD_REASON, describeHold } from "../core/schedule/hold.ts";
import { Times } from "../core/text/times.ts";
import { createLog } from "../effects/host/log.ts";
import { Option } from "@commander-js/extra-typings";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { utcOption } from "./options/utc.ts";
import { duration, time } from "./options/values.ts";
import { printLine } from "./display/output.ts";

function definition() {
  return hostCommand(
    "hold",
    "keep this host as it is: no release is fetched or activated, no reboot",
  )
    .addOption(
      new Option("--until <time>", "hold until then, such as 2026-12-24T18:00:00Z").argParser(time),
    )
    .addOption(new Option("--for <duration>", "hold for this long, such as 3d").argParser(duration))
    .option("--reason <text>", "why, for other people")
    .addOption(utcOption());
}

export const holdCommand: CommandMaker = ({ finish }) =>
  definition().action((options) => {
    finish(hold(options));
  });

/** `nixos-pull hold`: this host stays as it is until somebody ends the hold or its time is over. */
async function hold(options: OptionsOf<typeof definition>): CommandResult {
  const settings = await loadSettings(options.config);
  const tools = composeTools(settings, createLog(settings.log, { byHand: true }));
  const now = tools.clock.now();
  if (options.until !== undefined && options.for !== undefined) {
    throw new PullError("USAGE", "expected --until or --for, found both");
  }
  const until =
    options.for === undefined
      ? (options.until ?? null)
      : new Date(now.getTime() + options.for).toISOString();
  if (until !== null && Date.parse(until) <= now.getTime()) {
    throw new PullError("USAGE", `--until: expected a time after ${now.toISOString()}`);
  }
  const reason = options.reason?.trim() ?? "";
  if (reason.length > MAX_HOLD_REASON) {
    throw new PullError(
      "USAGE",
      `--reason: expected at most ${MAX_HOLD_REASON} characters, found ${reason.length}`,
    );
  }
  const held = await holdHost(tools, {
    ...{ until, reason: reason === "" ? null : reason },
    ...(options.for !== undefined && { lasts: options.for }),
  });
  const text = describeHold({ kind: "held", hold: held });
  printLine(`This host is ${new Times({ now, utc: options.utc }).within(text)}`);
  return EXIT.ok;
}

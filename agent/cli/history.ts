import * as z from "zod";
import { EXIT } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { Times } from "../core/text/times.ts";
import { historyEntrySchema } from "../core/update/history-entry.ts";
import { History } from "../effects/state/history.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { utcOption } from "./options/utc.ts";
import { positive } from "./options/values.ts";
import { describeHistory } from "./display/history.ts";
import { printJson } from "./display/json.ts";
import { printLine } from "./display/output.ts";
import { screenOf, show } from "./display/screen.ts";

/** What `history --json` prints: the entries, oldest first. */
const historySchema = z.strictObject({
  hostname: hostnameSchema,
  entries: z.array(historyEntrySchema),
});

function definition() {
  return hostCommand("history", "show what happened on this host")
    .addOption(jsonOption(historySchema))
    .addOption(utcOption())
    .option("-a, --all", "show each event, and not only what became of each attempt")
    .option("-n, --lines <count>", "show this many events, the newest last", positive, 50);
}

export const historyCommand: CommandMaker = ({ finish }) =>
  definition().action((options) => {
    finish(history(options));
  });

/** `nixos-pull history`: what happened on this host, oldest first. */
async function history(options: OptionsOf<typeof definition>): CommandResult {
  const settings = await loadSettings(options.config);
  const entries = (await new History(settings.paths.state).read()).slice(-options.lines);
  if (options.json) {
    printJson(historySchema, { hostname: settings.hostname, entries });
    return EXIT.ok;
  }
  if (entries.length === 0) {
    printLine("Nothing has happened here yet.");
    return EXIT.ok;
  }
  const times = new Times({ now: new Date(), utc: options.utc });
  const screen = screenOf(process.stdout);
  show(describeHistory(entries, { times, screen, all: options.all ?? false }));
  return EXIT.ok;
}

import * as z from "zod";
import { EXIT } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { historyEntrySchema } from "../core/update/history-entry.ts";
import { History } from "../effects/state/history.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { positive } from "./options/values.ts";
import { describeEntry } from "./display/history.ts";
import { printJson } from "./display/json.ts";
import { printLine } from "./display/output.ts";

/** What `history --json` prints: the entries, oldest first. */
const historySchema = z.strictObject({
  hostname: hostnameSchema,
  entries: z.array(historyEntrySchema),
});

function definition() {
  return hostCommand("history", "show what happened on this host")
    .addOption(jsonOption(historySchema))
    .option("-n, --lines <count>", "show this many entries, the newest last", positive, 50);
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
  for (const line of entries.flatMap(describeEntry)) printLine(line);
  return EXIT.ok;
}

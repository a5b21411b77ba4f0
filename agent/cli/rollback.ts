import * as z from "zod";
import { composeTools } from "../host/compose.ts";
import { rollBackByHand } from "../host/roll-back.ts";
import { EXIT } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { storePathSchema } from "../core/formats/store-path.ts";
import { shortSystemNames } from "../core/text/system-names.ts";
import { createLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { positive } from "./options/values.ts";
import { printJson } from "./display/json.ts";
import { show, styled } from "./display/screen.ts";

/** What `rollback --json` prints: what the host went back to. */
const rollbackSchema = z.strictObject({
  hostname: hostnameSchema,
  generation: z.int().positive().nullable().describe("null if the host has no profile"),
  toplevel: storePathSchema,
  needsReboot: z.boolean().describe("whether it takes full effect only with a reboot"),
});

const REBOOT = "It takes full effect with a reboot, which is yours to decide: systemctl reboot";

function definition() {
  return hostCommand("rollback", "go back to the previous generation, and stay there")
    .addOption(jsonOption(rollbackSchema))
    .option("-g, --generation <number>", "go to this generation instead", positive);
}

export const rollbackCommand: CommandMaker = ({ finish }) =>
  definition().action((options) => {
    finish(rollback(options));
  });

/** `nixos-pull rollback`: back to an earlier generation, by a person's decision. */
async function rollback(options: OptionsOf<typeof definition>): CommandResult {
  const settings = await loadSettings(options.config);
  const tools = composeTools(settings, createLog(settings.log, { byHand: true }));
  const target = await rollBackByHand(tools, options.generation ?? null);
  if (options.json) printJson(rollbackSchema, { hostname: settings.hostname, ...target });
  else {
    const name = shortSystemNames()(target.toplevel);
    show([
      [styled("good", "Back"), ` at generation ${target.generation}: ${name}`],
      ...(target.needsReboot ? [styled("waiting", REBOOT)] : []),
      "It stays there until a release with another system comes, or `nixos-pull apply --again`.",
    ]);
  }
  return EXIT.ok;
}

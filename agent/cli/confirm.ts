import * as z from "zod";
import { composeTools } from "../host/compose.ts";
import { confirmRelease } from "../host/operator-commands.ts";
import { EXIT } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { confirmationSchema } from "../core/schedule/confirmation.ts";
import { shortSystemNames } from "../core/text/system-names.ts";
import { createLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { printJson } from "./display/json.ts";
import { show, styled } from "./display/screen.ts";

/** What `confirm --json` prints: which release is confirmed, and since when. */
const confirmSchema = z.strictObject({ hostname: hostnameSchema, ...confirmationSchema.shape });

function definition() {
  return hostCommand("confirm", "allow the release that waits to be activated on this host")
    .argument("[release]", "its sequence number or the start of its digest; refuses any other")
    .addOption(jsonOption(confirmSchema));
}

export const confirmCommand: CommandMaker = ({ finish }) =>
  definition().action((release, options) => {
    finish(confirm(release, options));
  });

/** `nixos-pull confirm`: the release that waits may be activated on this host. */
async function confirm(
  release: string | undefined,
  options: OptionsOf<typeof definition>,
): CommandResult {
  const settings = await loadSettings(options.config);
  const tools = composeTools(settings, createLog(settings.log, { byHand: true }));
  const confirmed = await confirmRelease(tools, release);
  if (options.json) printJson(confirmSchema, { hostname: settings.hostname, ...confirmed });
  else {
    const { sequence, mode, toplevel } = confirmed;
    show([
      [
        styled("good", `Confirmed release ${sequence}`),
        `: ${mode} ${shortSystemNames()(toplevel)}`,
      ],
      "The service activates it now, if it runs.",
    ]);
  }
  return EXIT.ok;
}

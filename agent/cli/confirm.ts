import { composeTools } from "../host/compose.ts";
import { confirmRelease } from "../host/operator-commands.ts";
import { EXIT } from "../core/errors.ts";
import { createLog } from "../effects/host/log.ts";
import type { CommandResult, HostOptions } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { printJson, printLine } from "./display/output.ts";

export interface ConfirmOptions extends HostOptions {
  readonly json?: boolean;
}

/** `nixos-pull confirm`: the release that waits may be activated here. */
export async function confirm(release: string | undefined, options: ConfirmOptions): CommandResult {
  const settings = await loadSettings(options.config);
  const tools = composeTools(settings, createLog(settings.log));
  const confirmed = await confirmRelease(tools, release);
  if (options.json) printJson(confirmed);
  else {
    printLine(
      `Confirmed release ${confirmed.sequence}: ${confirmed.mode} ${confirmed.toplevel}\n` +
        "The service, where it runs, activates it now.",
    );
  }
  return EXIT.ok;
}

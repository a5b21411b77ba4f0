import { Agent } from "../host/agent.ts";
import { composeTools } from "../host/compose.ts";
import { EXIT } from "../core/errors.ts";
import { createLog } from "../effects/host/log.ts";
import type { CommandResult, HostOptions } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";

export interface DeadlineOptions extends HostOptions {
  readonly system: string;
}

/** `nixos-pull deadline`: run by the timer that an activation arms, not by people. */
export async function deadline(options: DeadlineOptions): CommandResult {
  const settings = await loadSettings(options.config);
  await new Agent(composeTools(settings, createLog(settings.log))).passDeadline(options.system);
  return EXIT.ok;
}

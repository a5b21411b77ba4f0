import { Agent } from "../host/agent.ts";
import { composeTools } from "../host/compose.ts";
import { EXIT } from "../core/errors.ts";
import { createLog } from "../effects/host/log.ts";
import type { CommandResult, HostOptions } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { printJson, printLine } from "./display/output.ts";

export interface RollbackOptions extends HostOptions {
  readonly json?: boolean;
  readonly generation?: number;
}

/** `nixos-pull rollback`: back to an earlier generation, by a person's decision. */
export async function rollback(options: RollbackOptions): CommandResult {
  const settings = await loadSettings(options.config);
  const tools = composeTools(settings, createLog(settings.log));
  const target = await new Agent(tools).rollBack(options.generation ?? null);
  if (options.json) printJson(target);
  else printLine(`Back at generation ${target.generation}: ${target.toplevel}`);
  return EXIT.ok;
}

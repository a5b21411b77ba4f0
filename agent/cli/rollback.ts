import { Agent } from "../app/agent.ts";
import { composeTools } from "../app/compose.ts";
import { EXIT } from "../core/errors.ts";
import { createLog } from "../effects/log.ts";
import type { CommandResult, HostOptions } from "./command.ts";
import { loadSettings } from "./configuration.ts";
import { printJson, printLine } from "./output.ts";

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

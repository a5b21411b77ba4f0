import { join } from "node:path";
import type { Settings } from "../core/settings.ts";
import { writeDurably } from "./durable-file.ts";

/**
 * The command that rolls a release back, with the configuration as this agent has it:
 * the new system's may be what is wrong.
 */
export async function deadlineCommand(
  settings: Settings,
  ownProgram: readonly string[],
  digest: string,
): Promise<readonly string[]> {
  const path = join(settings.paths.state, "deadline.json");
  await writeDurably(path, settings.source);
  return [...ownProgram, "deadline", "--config", path, "--release", digest];
}

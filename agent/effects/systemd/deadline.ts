import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Deadline } from "../../core/ports.ts";
import type { Settings } from "../../core/settings.ts";
import { writeDurably } from "../files/durable-file.ts";
import { childEnvironment } from "../nix/nix-environment.ts";

/** The NixOS module's `nixos-pull-boot.timer` runs this program, if it exists. */
const BOOT_PROGRAM = "boot-deadline";

/**
 * Deadlines that run this agent, `ownProgram`, with its present configuration. Those of the new
 * system may be what is broken.
 */
export function deadlineOf(settings: Settings, ownProgram: readonly string[]): Deadline {
  const bootProgram = join(settings.paths.state, BOOT_PROGRAM);
  const command = async (toplevel: string): Promise<readonly string[]> => {
    const path = join(settings.paths.state, "deadline.json");
    await writeDurably(path, settings.source);
    return [...ownProgram, "deadline", "--config", path, "--system", toplevel];
  };
  return {
    command,
    async armForBoot(toplevel) {
      const words = (await command(toplevel)).map(quoted).join(" ");
      const variables = Object.entries(childEnvironment()).map(
        ([name, value]) => `export ${name}=${quoted(value)}\n`,
      );
      await writeDurably(bootProgram, `#!/bin/sh\n${variables.join("")}exec ${words}\n`, 0o700);
    },
    disarmForBoot: () => rm(bootProgram, { force: true }),
  };
}

/** A word for the shell (POSIX, Shell Command Language, 2.2.2). */
function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

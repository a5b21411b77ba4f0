import { setTimeout as sleep } from "node:timers/promises";
import { bootVerdict } from "../host/boot-verdict.ts";
import { composeTools } from "../host/compose.ts";
import { EXIT, PullError } from "../core/errors.ts";
import { silentLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";

const LOOK_MS = 1_000;

function definition() {
  return hostCommand("boot-complete", "wait for the verdict on the system that was booted");
}

export const bootCompleteCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(bootComplete(options, signal));
  });

/**
 * `nixos-pull boot-complete`: waits for the verdict on the system that was booted; run by
 * a unit that boot-complete.target requires, so that a boot loader that counts boots marks
 * only those systems as good that the agent found good (systemd-bless-boot.service(8)).
 * Throws HEALTH_FAILED if the agent rejected the system.
 */
async function bootComplete(
  options: OptionsOf<typeof definition>,
  signal: AbortSignal,
): CommandResult {
  const settings = await loadSettings(options.config);
  const tools = composeTools(settings, silentLog);
  for (;;) {
    switch (await bootVerdict(tools)) {
      case "proven":
        return EXIT.ok;
      case "rejected":
        throw new PullError(
          "HEALTH_FAILED",
          "the agent rejected the system that was booted, and leaves it",
        );
      case "open":
        await sleep(LOOK_MS, undefined, { signal });
    }
  }
}

import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "../host/agent.ts";
import { composeTools } from "../host/compose.ts";
import { EXIT, PullError } from "../core/errors.ts";
import { silentLog } from "../effects/host/log.ts";
import type { CommandContext, CommandResult, HostOptions } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";

const LOOK_MS = 1_000;

/**
 * `nixos-pull boot-complete`: waits for the verdict on the system that was booted; run by
 * a unit that boot-complete.target requires, so that a boot loader that counts boots
 * believes no system that the agent does not (systemd-bless-boot.service(8)). Throws
 * HEALTH_FAILED where it was rejected.
 */
export async function bootComplete(
  options: HostOptions,
  { signal }: CommandContext,
): CommandResult {
  const settings = await loadSettings(options.config);
  const agent = new Agent(composeTools(settings, silentLog));
  for (;;) {
    switch (await agent.judgeBoot()) {
      case "proven":
        return EXIT.ok;
      case "rejected":
        throw new PullError("HEALTH_FAILED", "the system that was booted is being left");
      case "open":
        await sleep(LOOK_MS, undefined, { signal });
    }
  }
}

import { composeTools } from "../host/compose.ts";
import { holdHost, unholdHost } from "../host/operator-commands.ts";
import { EXIT, PullError } from "../core/errors.ts";
import { MAX_HOLD_REASON, describeHold } from "../core/schedule/hold.ts";
import { createLog } from "../effects/host/log.ts";
import type { CommandResult, HostOptions } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { printLine } from "./display/output.ts";

export interface HoldOptions extends HostOptions {
  /** UTC. */
  readonly until?: string;
  /** Milliseconds. */
  readonly for?: number;
  readonly reason?: string;
}

/** `nixos-pull hold`: this host stays what it is, until somebody or a time ends that. */
export async function hold(options: HoldOptions): CommandResult {
  const settings = await loadSettings(options.config);
  const tools = composeTools(settings, createLog(settings.log));
  const now = tools.clock.now();
  if (options.until !== undefined && options.for !== undefined) {
    throw new PullError("USAGE", "expected --until or --for, found both");
  }
  const until =
    options.for === undefined
      ? (options.until ?? null)
      : new Date(now.getTime() + options.for).toISOString();
  if (until !== null && Date.parse(until) <= now.getTime()) {
    throw new PullError("USAGE", `--until: expected a time after ${now.toISOString()}`);
  }
  const reason = options.reason?.trim() ?? "";
  if (reason.length > MAX_HOLD_REASON) {
    throw new PullError(
      "USAGE",
      `--reason: expected at most ${MAX_HOLD_REASON} characters, found ${reason.length}`,
    );
  }
  const held = await holdHost(tools, { until, reason: reason === "" ? null : reason });
  printLine(`This host is ${describeHold({ kind: "held", hold: held })}`);
  return EXIT.ok;
}

/** `nixos-pull unhold`: ends a hold. */
export async function unhold(options: HostOptions): CommandResult {
  const settings = await loadSettings(options.config);
  const ended = await unholdHost(composeTools(settings, createLog(settings.log)));
  printLine(ended ? "This host is held no longer." : "This host was not held.");
  return EXIT.ok;
}

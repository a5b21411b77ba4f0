import { setTimeout as sleep } from "node:timers/promises";
import { composeTools } from "../host/compose.ts";
import { readStatus, type HostStatus } from "../host/report/host-status.ts";
import { statusJson, statusSchema } from "../host/report/status-json.ts";
import { EXIT } from "../core/errors.ts";
import { Times } from "../core/text/times.ts";
import { silentLog } from "../effects/host/log.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { utcOption } from "./options/utc.ts";
import { encodeJson } from "./display/json.ts";
import { render, screenOf } from "./display/screen.ts";
import { describeStatus } from "./display/status.ts";

/** How often `--watch` looks again. */
const WATCH_MS = 1_000;

/** Clears the terminal and begins at its top (ECMA-48, ED and CUP). */
const CLEAR = "\u001b[2J\u001b[H";

function definition() {
  return hostCommand("status", "show what this host is and what the agent does")
    .addOption(jsonOption(statusSchema))
    .addOption(utcOption())
    .option("-w, --watch", "show it again whenever it changes");
}

export const statusCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((options) => {
    finish(status(options, signal));
  });

/** `nixos-pull status`: what this host is and what the agent is doing, from disk alone. */
async function status(options: OptionsOf<typeof definition>, signal: AbortSignal): CommandResult {
  const settings = await loadSettings(options.config);
  const tools = composeTools(settings, silentLog);
  const screen = screenOf(process.stdout);
  const redraws = options.watch && !options.json && process.stdout.isTTY;
  const asText = (status: HostStatus, now: Date): string =>
    render(describeStatus(status, new Times({ now, utc: options.utc }), screen), screen);
  const begin = tools.clock.now();
  let shown = "";
  do {
    const status = await readStatus(tools);
    const text = options.json ? encodeJson(statusJson(status)) : asText(status, tools.clock.now());
    // Elsewhere than on a terminal, that time passes is no news.
    const news = options.json || redraws ? text : asText(status, begin);
    if (news !== shown) {
      process.stdout.write(`${redraws ? CLEAR : ""}${text}\n`);
      shown = news;
    }
    if (options.watch) await sleep(WATCH_MS, undefined, { signal }).catch(() => undefined);
  } while (options.watch && !signal.aborted);
  return EXIT.ok;
}

import * as z from "zod";
import { EXIT } from "../core/errors.ts";
import { channelSchema, hostnameSchema } from "../core/formats/manifest.ts";
import type { PublicKey } from "../core/formats/signing-key.ts";
import { hostCommand, type CommandMaker, type CommandResult, type OptionsOf } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { jsonOption } from "./options/json.ts";
import { printJson } from "./display/json.ts";
import { printLine } from "./display/output.ts";

/**
 * What `config --json` prints: the configuration's own names, all keys with their defaults,
 * durations in milliseconds.
 */
const configSchema = z.looseObject({
  hostname: hostnameSchema,
  channel: channelSchema,
  mirrors: z.array(z.string()),
  publicKeys: z.array(z.string()),
  storeKeys: z.array(z.string()),
  revokedKeys: z.array(z.string()),
});

function definition() {
  return hostCommand("config", "check the configuration, without a mirror or a store").addOption(
    jsonOption(configSchema, "print it with its defaults, durations in milliseconds"),
  );
}

export const configCommand: CommandMaker = ({ finish }) =>
  definition().action((options) => {
    finish(config(options));
  });

/**
 * `nixos-pull config`: checks a configuration without a mirror or a store, so that a
 * mistake is found where a system is built and not on the host.
 */
async function config(options: OptionsOf<typeof definition>): CommandResult {
  const settings = await loadSettings(options.config);
  if (options.json) {
    const texts = (keys: readonly PublicKey[]): string[] => keys.map(({ text }) => text);
    const { source: _, ...shown } = settings;
    const { publicKeys, storeKeys, revokedKeys } = settings;
    printJson(configSchema, {
      ...shown,
      publicKeys: texts(publicKeys),
      storeKeys: texts(storeKeys),
      revokedKeys: texts(revokedKeys),
    });
  } else {
    printLine(
      `The configuration is valid: ${settings.hostname} follows ${settings.channel} ` +
        `from ${settings.mirrors.join(", ")}.`,
    );
  }
  return EXIT.ok;
}

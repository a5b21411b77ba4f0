import { EXIT, PullError } from "../core/errors.ts";
import { DEFAULT_CONFIG_FILE } from "../core/settings.ts";
import type { PublicKey } from "../core/formats/signing-key.ts";
import { scheduleOf } from "../effects/host/schedule.ts";
import type { CommandResult, HostOptions } from "./command.ts";
import { loadSettings } from "./options/configuration.ts";
import { printJson, printLine } from "./display/output.ts";

export interface ConfigOptions extends HostOptions {
  readonly json?: boolean;
}

/**
 * `nixos-pull config`: checks a configuration without a mirror or a store, so that a
 * mistake is found where a system is built and not on the host.
 */
export async function config(options: ConfigOptions): CommandResult {
  const settings = await loadSettings(options.config);
  try {
    scheduleOf(settings.poll);
  } catch (error) {
    if (!(error instanceof PullError)) throw error;
    const file = options.config ?? DEFAULT_CONFIG_FILE;
    throw new PullError(error.code, `${file}: ${error.message}`, { cause: error });
  }
  if (options.json) {
    const texts = (keys: readonly PublicKey[]): string[] => keys.map(({ text }) => text);
    const { source: _, ...shown } = settings;
    const { publicKeys, storeKeys, revokedKeys } = settings;
    printJson({
      ...shown,
      publicKeys: texts(publicKeys),
      storeKeys: texts(storeKeys),
      revokedKeys: texts(revokedKeys),
    });
  } else {
    printLine(
      `The configuration is right: ${settings.hostname} follows ${settings.channel} ` +
        `from ${settings.mirrors.join(", ")}.`,
    );
  }
  return EXIT.ok;
}

import { Option } from "@commander-js/extra-typings";
import { PullError } from "../../core/errors.ts";
import { DEFAULT_CONFIG_FILE, parseSettings, type Settings } from "../../core/settings.ts";
import { loadSettings } from "./configuration.ts";
import { positive, repeatable } from "./values.ts";
import { publicKeysOf } from "./public-keys.ts";

/** `--public-key`, of a command that verifies releases. */
export function trustedKeyOption() {
  return repeatable("-p, --public-key <key>", "trusted key, NAME:BASE64", "the configuration's");
}

/** `--store-key`, of a command that verifies store paths. */
export function trustedStoreKeyOption() {
  return repeatable("--store-key <key>", "trusted key for store paths", "the configuration's");
}

/** `--threshold`, of a command that verifies releases. */
export function thresholdOption() {
  return new Option("--threshold <count>", "how many of the keys must have signed").argParser(
    positive,
  );
}

/** What those options say. */
export interface TrustOptions {
  readonly publicKey: readonly string[];
  readonly storeKey: readonly string[];
  readonly threshold?: number;
  readonly config?: string;
}

/**
 * Keys come from the command line, or from the host's own configuration. Throws
 * CONFIG_NOT_FOUND, CONFIG_INVALID, KEY_INVALID.
 */
export async function settingsFor(url: string, options: TrustOptions): Promise<Settings> {
  if (options.publicKey.length === 0) return hostSettings(options);
  const publicKeys = publicKeysOf("--public-key", options.publicKey).map(({ text }) => text);
  const storeKeys = publicKeysOf("--store-key", options.storeKey).map(({ text }) => text);
  return parseSettings(
    {
      hostname: "operator",
      mirrors: [url],
      publicKeys,
      ...(storeKeys.length > 0 && { storeKeys }),
    },
    "operator",
  );
}

/**
 * The host's own configuration. An operator's machine has none, and is told what it needs. Throws
 * CONFIG_NOT_FOUND, CONFIG_INVALID.
 */
export async function hostSettings({ config }: Pick<TrustOptions, "config">): Promise<Settings> {
  try {
    return await loadSettings(config);
  } catch (cause) {
    const isMissing = cause instanceof PullError && cause.code === "CONFIG_NOT_FOUND";
    if (!isMissing || config !== undefined) throw cause;
    throw new PullError(
      "CONFIG_NOT_FOUND",
      `expected --public-key NAME:BASE64, or a host's configuration file at ${DEFAULT_CONFIG_FILE} ` +
        "with its keys; neither is there",
      { cause },
    );
  }
}

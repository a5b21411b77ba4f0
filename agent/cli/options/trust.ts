import { Option } from "@commander-js/extra-typings";
import { parsePublicKey } from "../../core/formats/signing-key.ts";
import { parseSettings, type Settings } from "../../core/settings.ts";
import { loadSettings } from "./configuration.ts";
import { positive, repeatable } from "./values.ts";

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

/** Keys come from the command line, or from the host's own configuration. */
export async function settingsFor(url: string, options: TrustOptions): Promise<Settings> {
  if (options.publicKey.length === 0) return loadSettings(options.config);
  const publicKeys = options.publicKey.map((text) => parsePublicKey(text).text);
  const storeKeys = options.storeKey.map((text) => parsePublicKey(text).text);
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

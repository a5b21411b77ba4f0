import { parsePublicKey } from "../../core/formats/signing-key.ts";
import { parseSettings, type Settings } from "../../core/settings.ts";
import { loadSettings } from "./configuration.ts";

/** Options of every command that verifies releases. */
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

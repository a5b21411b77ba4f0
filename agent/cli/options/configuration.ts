import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { Option } from "@commander-js/extra-typings";
import { PullError } from "../../core/errors.ts";
import { DEFAULT_CONFIG_FILE, parseSettings, type Settings } from "../../core/settings.ts";
import { isNotFound } from "../../effects/files/missing-file.ts";

/** `--config`; `what` says what is read from that file. */
export function configOption(what: string) {
  return new Option("-c, --config <file>", `${what} (default: ${DEFAULT_CONFIG_FILE})`);
}

/** Reads the configuration file. Throws CONFIG_NOT_FOUND or CONFIG_INVALID, naming it. */
export async function loadSettings(path: string = DEFAULT_CONFIG_FILE): Promise<Settings> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (!isNotFound(cause)) throw cause;
    throw new PullError(
      "CONFIG_NOT_FOUND",
      `expected a configuration file at ${path}; the NixOS module writes one, or give --config FILE`,
      { cause },
    );
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new PullError("CONFIG_INVALID", `${path}: expected JSON: ${(cause as Error).message}`, {
      cause,
    });
  }
  try {
    return parseSettings(json, hostname());
  } catch (error) {
    if (!(error instanceof PullError)) throw error;
    throw new PullError(error.code, `${path}: ${error.message}`, { cause: error });
  }
}

import { readFile } from "node:fs/promises";
import { EXIT, PullError } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { parseSettings } from "../core/settings.ts";
import { isNotFound } from "../effects/files/durable-file.ts";
import { bootstrapOf } from "../operator/repository/bootstrap.ts";
import type { CommandResult } from "./command.ts";
import { printJson } from "./display/output.ts";

/** What is printed: a script, or user data for cloud-init. */
export const BOOTSTRAP_FORMATS = ["cloud-init", "script"] as const;

export interface BootstrapOptions {
  readonly hostname: string;
  readonly mirror: readonly string[];
  readonly publicKey: readonly string[];
  readonly channel?: string;
  readonly threshold?: number;
  readonly settings?: string;
  readonly format: (typeof BOOTSTRAP_FORMATS)[number];
  readonly json?: boolean;
}

/**
 * `nixos-pull bootstrap`: what a fresh host is given so that it becomes what the release
 * says. `--json` is a flat map of texts, as Terraform's external data source wants it.
 */
export async function bootstrap(options: BootstrapOptions): CommandResult {
  const { hostname, mirror, publicKey, channel, threshold, format } = options;
  if (!hostnameSchema.safeParse(hostname).success) {
    throw new PullError(
      "USAGE",
      `--hostname: expected a hostname, found ${JSON.stringify(hostname)}`,
    );
  }
  const given = options.settings === undefined ? {} : await readObject(options.settings);
  const settings = {
    ...given,
    hostname,
    ...(mirror.length > 0 && { mirrors: mirror }),
    ...(publicKey.length > 0 && { publicKeys: publicKey.map((key) => key.trim()) }),
    ...(channel !== undefined && { channel }),
    ...(threshold !== undefined && { threshold }),
  };
  // What the agent would refuse is refused here.
  parseSettings(settings, hostname);
  const { config, script, userData } = bootstrapOf(settings);
  if (options.json) printJson({ hostname, config, script, user_data: userData });
  else process.stdout.write(format === "script" ? script : userData);
  return EXIT.ok;
}

async function readObject(file: string): Promise<Record<string, unknown>> {
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    if (!isNotFound(cause)) throw cause;
    throw new PullError("CONFIG_NOT_FOUND", `expected settings at ${file}`, { cause });
  });
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  } catch (cause) {
    throw new PullError("CONFIG_INVALID", `${file}: expected JSON`, { cause });
  }
  throw new PullError("CONFIG_INVALID", `${file}: expected a JSON object`);
}

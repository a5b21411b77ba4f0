import { readFile } from "node:fs/promises";
import { Option } from "@commander-js/extra-typings";
import * as z from "zod";
import { EXIT, PullError } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { parseSettings } from "../core/settings.ts";
import { isNotFound } from "../effects/files/missing-file.ts";
import { bootstrapOf } from "../operator/repository/bootstrap.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { printJson } from "./display/json.ts";
import { jsonOption } from "./options/json.ts";
import { positive, repeatable } from "./options/values.ts";

/** What is printed: a script, or user data for cloud-init. */
const FORMATS = ["cloud-init", "script"] as const;

/** What `bootstrap --json` prints: texts only, as Terraform's external data source reads them. */
const bootstrapSchema = z.strictObject({
  hostname: hostnameSchema,
  config: z.string(),
  script: z.string(),
  user_data: z.string(),
});

function definition() {
  return operatorCommand("bootstrap", "print what a fresh host needs to get its first release")
    .requiredOption("--hostname <name>", "the host's name in the release")
    .addOption(repeatable("--mirror <url>", "where it looks for releases", "the settings'"))
    .addOption(repeatable("-p, --public-key <key>", "trusted key, NAME:BASE64", "the settings'"))
    .option("--channel <name>", "the channel it follows (default: stable)")
    .option("--threshold <count>", "how many of the keys must have signed", positive)
    .option("--settings <file>", "further settings of its configuration, JSON")
    .addOption(
      new Option("--format <format>", "user data for cloud-init, or only the script in it")
        .choices(FORMATS)
        .default("cloud-init" as const),
    )
    .addOption(
      jsonOption(bootstrapSchema, "print all of it as a flat JSON object, as Terraform reads it"),
    );
}

export const bootstrapCommand: CommandMaker = ({ finish }) =>
  definition().action((options) => {
    finish(bootstrap(options));
  });

/**
 * `nixos-pull bootstrap`: what a fresh host needs so that it gets the system that the release
 * names. `--json` is a flat map of texts, as Terraform's external data source reads it.
 */
async function bootstrap(options: OptionsOf<typeof definition>): CommandResult {
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
  for (const [key, option] of Object.entries({ mirrors: "--mirror", publicKeys: "--public-key" })) {
    if (key in settings) continue;
    throw new PullError("USAGE", `expected ${option}, or ${key} in the file of --settings`);
  }
  // Refuses what the agent would refuse later, on the host.
  parseSettings(settings, hostname);
  const { config, script, userData } = bootstrapOf(settings);
  if (options.json) printJson(bootstrapSchema, { hostname, config, script, user_data: userData });
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

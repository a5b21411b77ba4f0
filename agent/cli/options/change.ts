import { Command, Option } from "@commander-js/extra-typings";
import type * as z from "zod";
import { PullError } from "../../core/errors.ts";
import { systemClock } from "../../effects/host/clock.ts";
import type { ChangeOptions } from "../../operator/channel/next-release.ts";
import { note } from "../display/output.ts";
import { publishedSchema, showDifference } from "../display/published.ts";
import { jsonOption } from "./json.ts";
import { utcOption } from "./utc.ts";
import {
  memoryOption,
  memoryPathsOf,
  signerKeyOption,
  signerOption,
  signersOf,
  type SignerOptions,
} from "./signers.ts";
import { channelName, duration, durationOrYears, repeatable } from "./values.ts";
import { mirrorDirectory } from "./mirror-place.ts";
import { publicKeysOf } from "./public-keys.ts";

/** A `release` command that reads the release in force; `--json` prints what `output` describes. */
export function releaseCommand(name: string, summary: string, output: z.ZodType) {
  return new Command(name)
    .description(summary)
    .requiredOption("-m, --mirror <directory>", "the mirror's directory")
    .addOption(repeatable("-p, --public-key <key>", "a key of the current release"))
    .addOption(utcOption())
    .addOption(jsonOption(output));
}

/** A `release` command that makes the next release out of one that is there, without building. */
export function changeCommand(name: string, summary: string) {
  return releaseCommand(name, summary, publishedSchema)
    .addOption(repeatable("-k, --key <file>", "secret key"))
    .addOption(signerOption())
    .addOption(signerKeyOption())
    .addOption(memoryOption())
    .addOption(
      new Option("--expires <duration>", `${EXPIRES} (default: ${DEFAULT_EXPIRES})`).argParser(
        duration,
      ),
    )
    .addOption(supportOption())
    .option("--draft <file>", "write the release here, for others to sign, not into force")
    .option("--unsigned <file>", "the same, signed by nobody");
}

/** `--channel`, of a command that reads or changes one channel. */
export function channelOption() {
  return new Option("--channel <name>", "the channel").argParser(channelName).default("stable");
}

const EXPIRES = "how long hosts may accept it";
const DEFAULT_EXPIRES = "90d";

/** `--expires`, of a command that always writes a release. */
export function expiresOption() {
  return new Option("--expires <duration>", EXPIRES)
    .argParser(duration)
    .default(duration(DEFAULT_EXPIRES), DEFAULT_EXPIRES);
}

/** `--support`, of a command that makes a release. */
export function supportOption() {
  return new Option(
    "--support <duration>",
    "how long older releases stay for agents that lack what it requires (default: 1y from the first that does)",
  ).argParser(durationOrYears);
}

/** What those options say, as `changeCommand` has them. */
export interface ChangeCommandOptions extends SignerOptions {
  readonly mirror: string;
  readonly channel: string;
  readonly publicKey: readonly string[];
  readonly expires?: number;
  readonly support?: number;
  readonly draft?: string;
  readonly unsigned?: string;
  readonly memory?: string;
  readonly utc?: true;
  readonly json?: true;
}

/** What the operator is to change, and who signs it. Throws USAGE, KEY_INVALID. */
export async function changeOptions(
  options: ChangeCommandOptions,
  signal: AbortSignal,
): Promise<ChangeOptions> {
  const { mirror, channel, unsigned } = options;
  if (unsigned !== undefined && options.draft !== undefined) {
    throw new PullError("USAGE", "expected --unsigned FILE or --draft FILE, not both");
  }
  const signers = await signersOf(options, signal);
  return {
    mirror: mirrorDirectory(mirror),
    channel,
    signers: unsigned === undefined ? signers : [],
    publicKeys: [
      ...publicKeysOf("--public-key", options.publicKey),
      ...(unsigned === undefined ? [] : signers.map(({ publicKey }) => publicKey)),
    ],
    draft: unsigned ?? options.draft,
    expiresInMs: options.expires ?? duration(DEFAULT_EXPIRES),
    supportMs: options.support,
    newExpiry: options.expires !== undefined,
    clock: systemClock,
    memory: await memoryPathsOf({ memory: options.memory, keys: options.key }),
    signal,
    onDifference: showDifference(options),
    onWarning: (message) => {
      note(`nixos-pull: ${message}`);
    },
  };
}

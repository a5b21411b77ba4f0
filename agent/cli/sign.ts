import * as z from "zod";
import { EXIT, PullError } from "../core/errors.ts";
import {
  activationOf,
  describePosition,
  positionOf,
  type Manifest,
} from "../core/formats/manifest.ts";
import type { SeenDifference } from "../operator/channel/seen-difference.ts";
import { signRelease } from "../operator/channel/sign-release.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { describeDifference, differenceJson, differenceSchema } from "./display/difference.ts";
import { hostSystemSchema, printJson, releaseJson, releaseShape } from "./display/json.ts";
import { counted } from "../core/text/quantity.ts";
import { formatTable, note, printLine } from "./display/output.ts";
import { againstAt, againstOption } from "./options/against.ts";
import { jsonOption } from "./options/json.ts";
import {
  memoryOption,
  memoryPathsOf,
  signerKeyOption,
  signerOption,
  signersOf,
} from "./options/signers.ts";
import { thresholdOption } from "./options/trust.ts";
import { channelName, repeatable } from "./options/values.ts";
import { publicKeysOf } from "./options/public-keys.ts";

/** What `sign --json` prints. */
const signSchema = z.strictObject({
  ...releaseShape,
  signedBy: releaseShape.signedBy.describe("names that its signatures claim; `added` are verified"),
  added: z.array(z.string()).describe("names of the keys whose signatures were added now"),
  file: z.string().describe("the file that was signed"),
  hosts: z.array(hostSystemSchema),
  epochReason: z.string().nullable().describe("why the numbering was restarted last"),
  difference: differenceSchema.describe("what the release changes: all that is signed"),
});

function definition() {
  return operatorCommand("sign", "add a signature to a release")
    .argument("<release>", "a draft, an envelope, or a mirror's directory")
    .addOption(repeatable("-k, --key <file>", "secret key"))
    .addOption(signerOption())
    .addOption(signerKeyOption())
    .addOption(
      repeatable("-p, --public-key <key>", "another key whose releases are believed, NAME:BASE64"),
    )
    .addOption(thresholdOption())
    .addOption(memoryOption())
    .addOption(againstOption())
    .option("--channel <name>", "the channel, if a mirror is given", channelName, "stable")
    .addOption(jsonOption(signSchema));
}

export const signCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((release, options) => {
    finish(sign(release, options, signal));
  });

/** `nixos-pull sign ENVELOPE-or-MIRROR`: adds a signature to a release. */
async function sign(
  target: string,
  options: OptionsOf<typeof definition>,
  signal: AbortSignal,
): CommandResult {
  const signers = await signersOf(options, signal);
  if (signers.length === 0) throw new PullError("USAGE", "expected --key or --signer");
  const publicKeys = [
    ...signers.map(({ publicKey }) => publicKey),
    ...publicKeysOf("--public-key", options.publicKey),
  ];
  const signed = await signRelease(target, options.channel, {
    signers,
    trust: { publicKeys, threshold: options.threshold ?? 1 },
    memory: await memoryPathsOf({ memory: options.memory, keys: options.key }),
    seeBefore: (manifest) => againstAt(options.against, manifest, publicKeys),
    onDifference: (difference, release) => {
      if (!options.json) showBefore(release.manifest, difference);
    },
    onWarning: (message) => {
      note(`nixos-pull: ${message}`);
    },
  });
  const { file, manifest, digest, difference, added, claimed } = signed;
  const { channel, epoch, createdAt, expiresAt } = manifest;
  const hosts = Object.entries(manifest.hosts).map(([hostname, entry]) => ({
    ...{ hostname, toplevel: entry.toplevel, mode: activationOf(manifest, entry).mode },
  }));
  if (options.json) {
    const release = releaseJson({ manifest, digest, signedBy: claimed });
    printJson(signSchema, {
      ...{ ...release, added, file, hosts, epochReason: epoch?.reason ?? null },
      difference: differenceJson(difference),
    });
    return EXIT.ok;
  }
  const position = describePosition(positionOf(manifest));
  printLine(
    added.length > 0
      ? `Signed release ${position} of ${channel} with ${added.join(", ")}; signatures now: ${claimed.join(", ")}.`
      : `Release ${position} of ${channel} has these signatures already: ${claimed.join(", ")}.`,
  );
  printLine(`Digest ${digest}`);
  if (epoch) printLine(`Epoch ${epoch.number}, begun because: ${epoch.reason}`);
  printLine(`Created ${createdAt}, good until ${expiresAt}, for ${counted(hosts.length, "host")}:`);
  printLine(formatTable(hosts.map(({ hostname, mode, toplevel }) => [hostname, mode, toplevel])));
  return EXIT.ok;
}

/** What is about to be signed, before it is. */
function showBefore(manifest: Manifest, difference: SeenDifference): void {
  const position = describePosition(positionOf(manifest));
  printLine(`Release ${position} of ${manifest.channel} changes:`);
  for (const line of describeDifference(difference)) printLine(line);
  printLine("");
}

import * as z from "zod";
import { EXIT, PullError } from "../core/errors.ts";
import { activationOf, describePosition, positionOf } from "../core/formats/manifest.ts";
import { signRelease } from "../operator/channel/sign-release.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { hostSystemSchema, printJson, releaseJson, releaseShape } from "./display/json.ts";
import { counted, formatTable, printLine } from "./display/output.ts";
import { jsonOption } from "./options/json.ts";
import {
  memoryOption,
  memoryPathOf,
  signerKeyOption,
  signerOption,
  signersOf,
} from "./options/signers.ts";
import { repeatable } from "./options/values.ts";

/** What `sign --json` prints. */
const signSchema = z.strictObject({
  ...releaseShape,
  signedBy: releaseShape.signedBy.describe("names that its signatures claim; `added` are verified"),
  added: z.array(z.string()).describe("names of the keys whose signatures were added now"),
  file: z.string().describe("the file that was signed"),
  hosts: z.array(hostSystemSchema),
});

function definition() {
  return operatorCommand("sign", "add a signature to a release")
    .argument("<release>", "a draft, an envelope, or a mirror's directory")
    .addOption(repeatable("-k, --key <file>", "secret key"))
    .addOption(signerOption())
    .addOption(signerKeyOption())
    .addOption(memoryOption())
    .option("--channel <name>", "the channel, if a mirror is given", "stable")
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
  const { file, manifest, digest, added, claimed } = await signRelease(target, options.channel, {
    signers,
    memory: memoryPathOf({ memory: options.memory, keys: options.key }),
  });
  const { channel, epoch, createdAt, expiresAt } = manifest;
  const hosts = Object.entries(manifest.hosts).map(([hostname, entry]) => ({
    ...{ hostname, toplevel: entry.toplevel, mode: activationOf(manifest, entry).mode },
  }));
  if (options.json) {
    const release = releaseJson({ manifest, digest, signedBy: claimed });
    printJson(signSchema, { ...release, added, file, hosts });
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

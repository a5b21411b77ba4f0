import { EXIT, PullError } from "../core/errors.ts";
import { describePosition, positionOf } from "../core/formats/manifest.ts";
import { signRelease } from "../operator/channel/sign-release.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { formatTable, printJson, printLine } from "./display/output.ts";
import { jsonOption } from "./options/json.ts";
import { signerKeyOption, signerOption, signersOf } from "./options/signers.ts";
import { repeatable } from "./options/values.ts";

function definition() {
  return operatorCommand("sign", "add a signature to a release")
    .argument("<release>", "a draft, an envelope, or a mirror's directory")
    .addOption(repeatable("-k, --key <file>", "secret key"))
    .addOption(signerOption())
    .addOption(signerKeyOption())
    .option("--channel <name>", "the channel, if a mirror is given", "stable")
    .addOption(jsonOption());
}

export const signCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((release, options) => {
    finish(sign(release, options, signal));
  });

/** `nixos-pull sign ENVELOPE-or-MIRROR`: one more signature under a release. */
async function sign(
  target: string,
  options: OptionsOf<typeof definition>,
  signal: AbortSignal,
): CommandResult {
  const signers = await signersOf(options, signal);
  if (signers.length === 0) throw new PullError("USAGE", "expected --key or --signer");
  const { file, manifest, digest, added, claimed } = await signRelease(
    target,
    options.channel,
    signers,
  );
  const { channel, epoch, sequence, createdAt, expiresAt, hosts } = manifest;
  if (options.json) {
    const release = { channel, epoch, sequence, digest, createdAt, expiresAt, hosts };
    printJson({ file, ...release, added, signatures: claimed });
    return EXIT.ok;
  }
  const position = describePosition(positionOf(manifest));
  const count = Object.keys(hosts).length;
  printLine(
    added.length > 0
      ? `Signed release ${position} of ${channel} with ${added.join(", ")}; signatures now: ${claimed.join(", ")}.`
      : `Release ${position} of ${channel} has these signatures already: ${claimed.join(", ")}.`,
  );
  printLine(`Digest ${digest}`);
  if (epoch) printLine(`Epoch ${epoch.number}, begun because: ${epoch.reason}`);
  printLine(
    `Created ${createdAt}, good until ${expiresAt}, for ${count} host${count === 1 ? "" : "s"}:`,
  );
  printLine(
    formatTable(
      Object.entries(hosts).map(([name, { toplevel, activation }]) => [
        name,
        activation?.mode ?? manifest.defaults.activation.mode,
        toplevel,
      ]),
    ),
  );
  return EXIT.ok;
}

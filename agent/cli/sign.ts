import { EXIT, PullError } from "../core/errors.ts";
import { describePosition, positionOf } from "../core/formats/manifest.ts";
import { signRelease } from "../operator/channel/sign-release.ts";
import type { CommandContext, CommandResult } from "./command.ts";
import { formatTable, printJson, printLine } from "./display/output.ts";
import { signersOf, type SignerOptions } from "./options/signers.ts";

export interface SignOptions extends SignerOptions {
  readonly channel: string;
  readonly json?: boolean;
}

/** `nixos-pull sign ENVELOPE-or-MIRROR`: one more signature under a release. */
export async function sign(
  target: string,
  options: SignOptions,
  { signal }: CommandContext,
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

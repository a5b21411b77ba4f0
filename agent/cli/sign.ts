import { EXIT, PullError } from "../core/errors.ts";
import { signRelease } from "../publisher/sign-release.ts";
import type { CommandContext, CommandResult } from "./command.ts";
import { formatTable, printJson, printLine } from "./output.ts";
import { signersOf, type SignerOptions } from "./signers.ts";

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
  const { file, manifest, added, claimed } = await signRelease(target, options.channel, signers);
  const { channel, sequence, createdAt, expiresAt, hosts } = manifest;
  if (options.json) {
    printJson({ file, channel, sequence, createdAt, expiresAt, added, signatures: claimed });
    return EXIT.ok;
  }
  printLine(
    added.length > 0
      ? `Signed release ${sequence} of ${channel} with ${added.join(", ")}; it has ${claimed.length} signatures: ${claimed.join(", ")}.`
      : `Release ${sequence} of ${channel} has these signatures already: ${claimed.join(", ")}.`,
  );
  printLine(
    `Created ${createdAt}, good until ${expiresAt}, for ${Object.keys(hosts).length} hosts:`,
  );
  printLine(formatTable(Object.entries(hosts).map(([name, { toplevel }]) => [name, toplevel])));
  return EXIT.ok;
}

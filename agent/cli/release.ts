import { resolve } from "node:path";
import { EXIT, PullError } from "../core/errors.ts";
import { ACTIVATION_MODES, type ActivationMode } from "../core/formats/manifest.ts";
import { parsePublicKey } from "../core/formats/signing-key.ts";
import { systemClock } from "../effects/host/clock.ts";
import {
  abortRelease,
  editRelease,
  pauseRelease,
  promoteRelease,
  resumeRelease,
  type ChangeOptions,
} from "../operator/channel/change-release.ts";
import type { Published } from "../operator/publish/publish.ts";
import { parseAssignment, parseGroups } from "../operator/channel/rollout-request.ts";
import type { CommandContext, CommandResult } from "./command.ts";
import { note } from "./display/output.ts";
import { printPublished } from "./publish.ts";
import { barrierRequest, rolloutRequest, type RolloutOptions } from "./options/rollout-options.ts";
import { signersOf, type SignerOptions } from "./options/signers.ts";

/** Options of every `release` command that makes the next release out of one that is there. */
export interface ChangeCommandOptions extends SignerOptions {
  readonly mirror: string;
  readonly channel: string;
  readonly publicKey: readonly string[];
  readonly expires: number;
  readonly draft?: string;
  readonly unsigned?: string;
  readonly json?: boolean;
}

export interface ResumeOptions extends ChangeCommandOptions {
  readonly catchUp?: boolean;
}

export interface AbortOptions extends ChangeCommandOptions {
  readonly to?: number;
}

export interface EditOptions extends ChangeCommandOptions, RolloutOptions {
  readonly everyone?: boolean;
  readonly now: readonly string[];
  readonly hold: readonly string[];
  readonly free: readonly string[];
  readonly group: readonly string[];
  readonly mode: readonly string[];
  readonly remove: readonly string[];
}

export interface PromoteOptions extends Omit<ChangeCommandOptions, "channel">, RolloutOptions {
  readonly from: string;
  readonly to: string;
  readonly keepHosts?: boolean;
}

/** `nixos-pull release pause REASON`: no host begins from now on. */
export async function pause(
  reason: string,
  options: ChangeCommandOptions,
  context: CommandContext,
): CommandResult {
  return made(options, await pauseRelease(await changeOptions(options, context), reason));
}

/** `nixos-pull release resume`: the rollout goes on. */
export async function resume(options: ResumeOptions, context: CommandContext): CommandResult {
  const { catchUp = false } = options;
  return made(options, await resumeRelease(await changeOptions(options, context), { catchUp }));
}

/** `nixos-pull release abort`: back to the systems of an earlier release. */
export async function abort(options: AbortOptions, context: CommandContext): CommandResult {
  const { to } = options;
  return made(options, await abortRelease(await changeOptions(options, context), { to }));
}

/** `nixos-pull release edit`: the same systems, another policy. */
export async function edit(options: EditOptions, context: CommandContext): CommandResult {
  const rollout = rolloutRequest(options);
  if (options.everyone && Object.values(rollout).some((part) => part !== undefined)) {
    throw new PullError("USAGE", "expected no rollout with --everyone");
  }
  const policy = {
    ...rollout,
    everyone: options.everyone ?? false,
    now: options.now,
    hold: assignments(options.hold, "--hold"),
    free: options.free,
    groups: parseGroups(options.group),
    modes: modesOf(options.mode),
    remove: options.remove,
    barrier: barrierRequest(options),
  };
  return made(options, await editRelease(await changeOptions(options, context), policy));
}

/** `nixos-pull release promote`: another channel's release as the next one of this channel. */
export async function promote(options: PromoteOptions, context: CommandContext): CommandResult {
  const { from, to: channel, keepHosts = false } = options;
  const change = await changeOptions({ ...options, channel }, context);
  const policy = { rollout: rolloutRequest(options), barrier: barrierRequest(options) };
  return made(options, await promoteRelease(change, { from, keepHosts, ...policy }));
}

function made(options: Pick<ChangeCommandOptions, "json">, published: Published): number {
  if (published.dropped.length > 0) {
    note(
      `nixos-pull: release ${published.sequence} no longer names ${published.dropped.join(", ")}`,
    );
  }
  printPublished(published, options);
  return EXIT.ok;
}

async function changeOptions(
  options: ChangeCommandOptions,
  { signal }: CommandContext,
): Promise<ChangeOptions> {
  const { mirror, channel, unsigned } = options;
  if (unsigned !== undefined && options.draft !== undefined) {
    throw new PullError("USAGE", "expected --unsigned FILE or --draft FILE, not both");
  }
  const signers = await signersOf(options, signal);
  return {
    mirror: resolve(mirror),
    channel,
    signers: unsigned === undefined ? signers : [],
    publicKeys: [
      ...options.publicKey.map(parsePublicKey),
      ...(unsigned === undefined ? [] : signers.map(({ publicKey }) => publicKey)),
    ],
    draft: unsigned ?? options.draft,
    expiresInMs: options.expires,
    clock: systemClock,
    signal,
    onWarning: (message) => {
      note(`nixos-pull: ${message}`);
    },
  };
}

function assignments(texts: readonly string[], option: string): Map<string, string> {
  return new Map(
    texts.map((text) => {
      const { hostname, value } = parseAssignment(text, option);
      return [hostname, value];
    }),
  );
}

function modesOf(texts: readonly string[]): Map<string, ActivationMode> {
  return new Map(
    [...assignments(texts, "--mode")].map(([hostname, text]) => {
      const mode = ACTIVATION_MODES.find((known) => known === text);
      if (mode) return [hostname, mode];
      throw new PullError(
        "USAGE",
        `--mode: expected HOST=${ACTIVATION_MODES.join("|")}, found ${JSON.stringify(text)}`,
      );
    }),
  );
}

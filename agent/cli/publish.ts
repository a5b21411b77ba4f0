import { resolve } from "node:path";
import { EXIT, PullError } from "../core/errors.ts";
import type { ActivationMode } from "../core/formats/manifest.ts";
import type { Compression } from "../core/formats/narinfo.ts";
import { parsePublicKey } from "../core/formats/signing-key.ts";
import { systemClock } from "../effects/host/clock.ts";
import { parseHostOption, type HostSpec } from "../operator/publish/host-spec.ts";
import { COMPRESSION_LEVELS } from "../operator/publish/nar-compressor.ts";
import { readHostsFile } from "../operator/publish/nix-builder.ts";
import { parseAllowedSecret } from "../operator/publish/secret-guard.ts";
import {
  publish as publishRelease,
  publishDraft,
  type Published,
  type PublishProgress,
} from "../operator/publish/publish.ts";
import { parseGroups } from "../operator/channel/rollout-request.ts";
import type { CommandContext, CommandResult } from "./command.ts";
import {
  ProgressLine,
  formatBytes,
  formatTable,
  note,
  printJson,
  printLine,
} from "./display/output.ts";
import { barrierRequest, rolloutRequest, type RolloutOptions } from "./options/rollout-options.ts";
import { readSecretKey, signersOf, type SignerOptions } from "./options/signers.ts";

export interface PublishCommandOptions extends SignerOptions, RolloutOptions {
  readonly mirror: string;
  readonly channel: string;
  readonly host: readonly string[];
  readonly hosts?: string;
  readonly group: readonly string[];
  readonly storeKey: readonly string[];
  readonly publicKey: readonly string[];
  readonly refresh?: boolean;
  readonly newEpoch?: string;
  readonly epoch?: number;
  readonly draft?: string;
  readonly unsigned?: string;
  readonly fromDraft?: string;
  readonly threshold?: number;
  readonly mode: ActivationMode;
  readonly expires: number;
  readonly compression: Compression;
  readonly level?: number;
  readonly whole?: boolean;
  readonly deltas: number;
  readonly cache?: string;
  readonly sequence?: number;
  readonly allowSecrets: readonly string[];
  readonly keepHosts?: boolean;
  readonly json?: boolean;
}

/** `nixos-pull publish`: build, copy, pack, sign, write; or the last step of these alone. */
export async function publish(
  options: PublishCommandOptions,
  { signal }: CommandContext,
): CommandResult {
  if (options.fromDraft !== undefined) return fromDraft(options, options.fromDraft);
  if (options.epoch !== undefined && options.newEpoch === undefined) {
    throw new PullError("USAGE", "expected --new-epoch REASON with --epoch");
  }
  const { unsigned } = options;
  if (unsigned !== undefined && options.draft !== undefined) {
    throw new PullError("USAGE", "expected --unsigned FILE or --draft FILE, not both");
  }
  const rollout = rolloutRequest(options);
  const signers = await signersOf(options, signal);
  const storeKeys = await Promise.all(
    (options.storeKey.length > 0 ? options.storeKey : options.key).map(readSecretKey),
  );
  const progress = new ProgressLine();
  const onProgress = (event: PublishProgress): void => {
    showProgress(event, progress);
  };
  const context = {
    signal,
    onLine: (line: string) => {
      onProgress({ phase: "nix", line });
    },
  };
  const fromFile: HostSpec[] =
    options.hosts === undefined ? [] : await readHostsFile(options.hosts, context);
  const published = await publishRelease({
    hosts: withGroups([...fromFile, ...options.host.map(parseHostOption)], options.group),
    mirror: resolve(options.mirror),
    channel: options.channel,
    signers: unsigned === undefined ? signers : [],
    storeKeys,
    publicKeys: [
      ...options.publicKey.map(parsePublicKey),
      ...(unsigned === undefined ? [] : signers.map(({ publicKey }) => publicKey)),
    ],
    refresh: options.refresh ?? false,
    newEpoch:
      options.newEpoch === undefined
        ? undefined
        : { reason: options.newEpoch, number: options.epoch },
    draft: unsigned ?? options.draft,
    mode: options.mode,
    expiresInMs: options.expires,
    compression: options.compression,
    level: levelOf(options),
    whole: options.whole ?? false,
    deltas: options.deltas,
    cache: options.cache === undefined ? undefined : resolve(options.cache),
    sequence: options.sequence,
    keepHosts: options.keepHosts ?? false,
    rollout,
    barrier: barrierRequest(options),
    allowSecrets: options.allowSecrets.map(parseAllowedSecret),
    clock: systemClock,
    signal,
    onProgress,
  });
  progress.clear();
  printPublished(published, options);
  return EXIT.ok;
}

/** The hosts with the groups that the command line puts them into. Throws USAGE. */
function withGroups(hosts: readonly HostSpec[], options: readonly string[]): HostSpec[] {
  const groups = parseGroups(options);
  for (const hostname of groups.keys()) {
    if (hosts.some((spec) => spec.hostname === hostname)) continue;
    throw new PullError("USAGE", `--group: expected a host that is published, found ${hostname}`);
  }
  return hosts.map((spec) => {
    const more = groups.get(spec.hostname);
    return more ? { ...spec, groups: [...new Set([...(spec.groups ?? []), ...more])] } : spec;
  });
}

/** The level of compression, where the program knows it. Throws USAGE. */
function levelOf({ compression, level }: PublishCommandOptions): number | undefined {
  if (level === undefined) return undefined;
  const range = compression === "none" ? null : COMPRESSION_LEVELS[compression];
  if (range && level >= range.min && level <= range.max) return level;
  throw new PullError(
    "USAGE",
    range
      ? `--level: expected ${range.min} to ${range.max} for ${compression}, found ${level}`
      : "--level: expected a compression that has levels",
  );
}

/** `publish --from-draft`: a release that was signed elsewhere comes into force. */
async function fromDraft(options: PublishCommandOptions, draft: string): Promise<number> {
  const publicKeys = options.publicKey.map(parsePublicKey);
  if (publicKeys.length === 0) {
    throw new PullError("USAGE", "expected the hosts' --public-key: the draft is verified first");
  }
  const threshold = options.threshold ?? 1;
  const published = await publishDraft({
    mirror: options.mirror,
    draft,
    trust: { publicKeys, threshold },
    clock: systemClock,
  });
  printPublished(published, options);
  return EXIT.ok;
}

/** Says what was published or drafted. */
export function printPublished(
  published: Published,
  options: { readonly json?: boolean | undefined },
): void {
  if (options.json) {
    printJson(published);
    return;
  }
  const { channel, epoch, sequence, expiresAt, manifest, signedBy, draft } = published;
  printLine(
    `${draft ? "Drafted" : "Published"} release ${sequence} of ${channel}` +
      `${epoch === 0 ? "" : `, epoch ${epoch}`}, signed by ${signedBy.join(", ") || "nobody yet"}, ` +
      `good until ${expiresAt}.`,
  );
  const hosts = Object.entries(published.hosts);
  // A refresh or a draft that comes into force packs nothing.
  if (hosts.length > 0) {
    printLine(
      formatTable(
        hosts.map(([hostname, host]) => [
          hostname,
          host.mode,
          `${host.paths} paths`,
          `${formatBytes(host.archive.size)}${host.reused ? " (unchanged)" : ""}`,
          host.toplevel,
        ]),
      ),
    );
  }
  printLine(manifest);
}

/** More are only counted. */
const MAX_NAMES = 3;

function describeBuild({ hostnames, at, of }: PublishProgress & { phase: "build" }): string {
  const more = hostnames.length - MAX_NAMES;
  const names = hostnames.slice(0, MAX_NAMES).join(", ") + (more > 0 ? ` and ${more} more` : "");
  const last = at + hostnames.length;
  return `${names} (${hostnames.length > 1 ? `${at + 1} to ${last}` : last} of ${of})`;
}

function showProgress(event: PublishProgress, progress: ProgressLine): void {
  switch (event.phase) {
    case "build":
      progress.clear();
      note(`building ${describeBuild(event)}`);
      break;
    case "compress":
      progress.show(`compressing paths: ${event.done} of ${event.of}`);
      break;
    case "delta":
      progress.show(`making deltas: ${event.done} of ${event.of}`);
      break;
    case "pack":
      progress.show(`packing ${event.hostname}: ${formatBytes(event.bytes)}`);
      break;
    case "nix":
      progress.show(event.line);
      break;
    case "warning":
      progress.clear();
      note(`nixos-pull: ${event.message}`);
      break;
    default:
      event satisfies never;
  }
}

import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { EXIT, PullError } from "../core/errors.ts";
import type { ActivationMode } from "../core/manifest.ts";
import type { Compression } from "../core/narinfo.ts";
import { parseSecretKey, type SecretKey } from "../core/signing-key.ts";
import { systemClock } from "../effects/clock.ts";
import { isNotFound } from "../effects/durable-file.ts";
import { parseHostOption, type HostSpec } from "../publisher/host-spec.ts";
import { readHostsFile } from "../publisher/nix-builder.ts";
import { publish as publishRelease, type PublishProgress } from "../publisher/publish.ts";
import type { CommandContext, CommandResult } from "./command.ts";
import { ProgressLine, formatBytes, formatTable, note, printJson, printLine } from "./output.ts";

export interface PublishCommandOptions {
  readonly mirror: string;
  readonly channel: string;
  readonly host: readonly string[];
  readonly hosts?: string;
  readonly key: readonly string[];
  readonly mode: ActivationMode;
  readonly expires: number;
  readonly compression: Compression;
  readonly cache?: string;
  readonly sequence?: number;
  readonly keepHosts?: boolean;
  readonly json?: boolean;
}

/** `nixos-pull publish`: build, copy, pack, sign, write. */
export async function publish(
  options: PublishCommandOptions,
  { signal }: CommandContext,
): CommandResult {
  if (options.key.length === 0) throw new PullError("USAGE", "expected --key FILE");
  const keys = await Promise.all(options.key.map(readKey));
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
    hosts: [...fromFile, ...options.host.map(parseHostOption)],
    mirror: resolve(options.mirror),
    channel: options.channel,
    keys,
    mode: options.mode,
    expiresInMs: options.expires,
    compression: options.compression,
    cache: options.cache === undefined ? undefined : resolve(options.cache),
    sequence: options.sequence,
    keepHosts: options.keepHosts ?? false,
    clock: systemClock,
    signal,
    onProgress,
  });
  progress.clear();
  if (options.json) {
    printJson(published);
    return EXIT.ok;
  }
  const { channel, sequence, expiresAt, manifest, signedBy } = published;
  printLine(
    `Published release ${sequence} of ${channel}, signed by ${signedBy.join(", ")}, good until ${expiresAt}.`,
  );
  printLine(
    formatTable(
      Object.entries(published.hosts).map(([hostname, host]) => [
        hostname,
        host.mode,
        `${host.paths} paths`,
        `${formatBytes(host.archive.size)}${host.reused ? " (unchanged)" : ""}`,
        host.toplevel,
      ]),
    ),
  );
  printLine(manifest);
  return EXIT.ok;
}

/** Reads a secret key file; warns where others can read it too. */
async function readKey(path: string): Promise<SecretKey> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (!isNotFound(cause)) throw cause;
    throw new PullError("KEY_INVALID", `expected a secret key file at ${path}`, { cause });
  }
  if (((await stat(path)).mode & 0o077) !== 0) {
    note(`nixos-pull: ${path} can be read by others; chmod 600 it`);
  }
  try {
    return parseSecretKey(text);
  } catch (error) {
    throw new PullError("KEY_INVALID", `${path}: ${(error as Error).message}`, { cause: error });
  }
}

function showProgress(event: PublishProgress, progress: ProgressLine): void {
  switch (event.phase) {
    case "build":
      progress.clear();
      note(`building ${event.hostname} (${event.at} of ${event.of})`);
      break;
    case "copy":
      progress.clear();
      note(`copying the closures of ${event.systems} systems`);
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

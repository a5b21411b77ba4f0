import { lstat, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { EXIT, PullError } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { MIRROR_ADDRESS_RULE, parseMirrorAddress } from "../core/formats/mirror-address.ts";
import { isNotFound } from "../effects/files/missing-file.ts";
import {
  isSourceAddress,
  startingFiles,
  type StartingFile,
} from "../operator/repository/starting-repository.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { note, printLine } from "./display/output.ts";
import { repeatable } from "./options/values.ts";
import { makeDirectory } from "../effects/files/make-directory.ts";

const DEFAULT_HOST = "web1";
const DEFAULT_MIRROR = "https://releases.example.org";

function definition() {
  return operatorCommand(
    "init",
    "write a repository to start from: configuration, pins, scripts, CI",
  )
    .argument("<directory>", "where to write it; nothing that exists is overwritten")
    .addOption(repeatable("--host <name>", "a host", DEFAULT_HOST))
    .addOption(repeatable("--mirror <url>", "where hosts look for releases", "an example"))
    .option("--flake", "write a flake instead of nixos.nix with pins")
    .option("--nixpkgs <source>", "archive or flake of nixpkgs (default: a release of NixOS)")
    .option("--nixos-pull <source>", "archive or flake of nixos-pull (default: an example)");
}

export const initCommand: CommandMaker = ({ finish }) =>
  definition().action((directory, options) => {
    finish(init(directory, options));
  });

/**
 * `nixos-pull init DIR`: writes a repository to start from. If one of its files exists
 * already, nothing at all is written.
 */
async function init(directory: string, options: OptionsOf<typeof definition>): CommandResult {
  const hosts = options.host.length === 0 ? [DEFAULT_HOST] : options.host;
  const mirrors = options.mirror.length === 0 ? [DEFAULT_MIRROR] : options.mirror;
  for (const hostname of hosts) {
    if (hostnameSchema.safeParse(hostname).success) continue;
    throw new PullError("USAGE", `--host: expected a hostname, found ${JSON.stringify(hostname)}`);
  }
  if (new Set(hosts).size < hosts.length) {
    throw new PullError("USAGE", "--host: expected each name once");
  }
  for (const mirror of mirrors) {
    if (parseMirrorAddress(mirror)) continue;
    throw new PullError(
      "USAGE",
      `--mirror: expected ${MIRROR_ADDRESS_RULE}, found ${JSON.stringify(mirror)}`,
    );
  }
  const { flake = false, nixpkgs, nixosPull } = options;
  for (const [option, source] of Object.entries({
    "--nixpkgs": nixpkgs,
    "--nixos-pull": nixosPull,
  })) {
    if (source === undefined || isSourceAddress(source)) continue;
    throw new PullError(
      "USAGE",
      `${option}: expected ${flake ? "a flake's reference" : "an archive's address"} without spaces and quotes, found ${JSON.stringify(source)}`,
    );
  }
  const files = startingFiles({ hosts, mirrors, flake, nixpkgs, nixosPull });
  for (const { path } of files) {
    if (await exists(join(directory, path))) {
      throw new PullError("USAGE", `${join(directory, path)} exists already; nothing was written`);
    }
  }
  for (const file of files) await writeNew(directory, file);
  for (const { path } of files) printLine(join(directory, path));
  note(`Go on with ${join(directory, "README.md")}.`);
  return EXIT.ok;
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

async function writeNew(
  directory: string,
  { path, text, executable }: StartingFile,
): Promise<void> {
  const target = join(directory, path);
  await makeDirectory(dirname(target));
  // `wx`: a file that somebody made meanwhile is not overwritten either.
  const file = await open(target, "wx", executable ? 0o755 : 0o644);
  try {
    await file.writeFile(text);
  } finally {
    await file.close();
  }
}

import { mkdir, readFile, readlink } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { PullError } from "../core/errors.ts";
import type { StorePathInfo } from "../core/narinfo.ts";
import { isNotFound } from "../effects/durable-file.ts";
import { describeFailure, runProcess, type ProcessResult } from "../effects/subprocess.ts";
import { parseHostsFile, type HostSpec } from "./host-spec.ts";
import { parsePathInfos } from "./store-closure.ts";

/** Nix's new command line and flakes, whatever the operator's settings are. */
export const EXPERIMENTAL = ["--extra-experimental-features", "nix-command flakes"];

/** A NixOS build may compile for as long as it likes; this only ends what is stuck. */
const BUILD_TIMEOUT_MS = 24 * 3600 * 1000;

/** What a build is told and whom it tells. */
export interface BuildContext {
  readonly signal: AbortSignal | undefined;
  /** Hears every line that Nix prints. */
  readonly onLine: (line: string) => void;
}

/**
 * Builds a host's system with the operator's own Nix settings and keeps it from the
 * garbage collector by a link in `rootsDirectory`. Gives the toplevel's store path.
 * Throws BUILD_FAILED, TOOL_MISSING.
 */
export async function buildSystem(
  spec: HostSpec,
  rootsDirectory: string,
  context: BuildContext,
): Promise<string> {
  await mkdir(rootsDirectory, { recursive: true });
  const link = join(rootsDirectory, spec.hostname);
  const { source } = spec;
  switch (source.kind) {
    case "file": {
      const attribute = source.attribute === null ? [] : ["-A", source.attribute];
      await nix("nix-build", [resolve(source.file), ...attribute, "--out-link", link], context);
      break;
    }
    case "flake":
      await nix("nix", [...EXPERIMENTAL, "build", source.installable, "--out-link", link], context);
      break;
    case "derivation":
    case "storePath":
      await nix("nix-store", ["--realise", source.path, "--add-root", link, "--indirect"], context);
      break;
    default:
      return source satisfies never;
  }
  return readlink(link);
}

/** What the operator's store knows of the closures of these paths, by base name. */
export async function readPathInfos(
  toplevels: readonly string[],
  context: BuildContext,
): Promise<Map<string, StorePathInfo>> {
  const args = [...EXPERIMENTAL, "path-info", "--json", "--recursive", ...toplevels];
  const { stdout } = await nix("nix", args, context, "PUBLISH_FAILED");
  return parsePathInfos(stdout);
}

/** Evaluates to `{ NAME = { system = "….drv"; activation = …; … }; }` as JSON. */
const HOSTS_EXPRESSION = `
file:
let
  value = import file;
  hosts = if builtins.isFunction value then value { } else value;
  isSystem = host: host.type or null == "derivation";
in
builtins.mapAttrs (
  name: host:
  if isSystem host then
    { system = host.drvPath; }
  else
    # What is not known is passed on, to be refused by name.
    host // { system = host.system.drvPath; }
) hosts
`;

/**
 * Reads a hosts file, JSON or Nix. A Nix file is an attribute set (or a function of
 * `{}` to one) of hostnames to systems, or to `{ system, activation, … }`. Throws
 * BUILD_FAILED, CONFIG_INVALID.
 */
export async function readHostsFile(file: string, context: BuildContext): Promise<HostSpec[]> {
  if (!file.endsWith(".nix")) {
    const text = await readFile(file, "utf8").catch((cause: unknown) => {
      if (!isNotFound(cause)) throw cause;
      throw new PullError("CONFIG_NOT_FOUND", `expected a hosts file at ${file}`, { cause });
    });
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch (cause) {
      throw new PullError("CONFIG_INVALID", `${file}: expected JSON`, { cause });
    }
    return parseHostsFile(json, file).map((spec) => besideFile(spec, dirname(resolve(file))));
  }
  const { stdout } = await nix(
    "nix-instantiate",
    [
      "--eval",
      "--strict",
      "--json",
      // Writes the derivations, so that they can be realised afterwards.
      "--read-write-mode",
      "--expr",
      `(${HOSTS_EXPRESSION}) (/. + ${JSON.stringify(resolve(file))})`,
    ],
    context,
  );
  return parseHostsFile(JSON.parse(stdout), file);
}

/** Relative sources in a hosts file are meant from where the file is. */
function besideFile(spec: HostSpec, directory: string): HostSpec {
  const { source } = spec;
  if (source.kind === "file") {
    return { ...spec, source: { ...source, file: resolve(directory, source.file) } };
  }
  if (source.kind === "flake" && source.installable.startsWith(".")) {
    const [path = "", attribute = ""] = source.installable.split("#");
    const installable = `${resolve(directory, path)}#${attribute}`;
    return { ...spec, source: { ...source, installable } };
  }
  return spec;
}

/** Runs one of Nix's programs as the operator would. Throws `code`, TOOL_MISSING, INTERRUPTED. */
export async function nix(
  command: string,
  args: readonly string[],
  { signal, onLine }: BuildContext,
  code: "BUILD_FAILED" | "PUBLISH_FAILED" = "BUILD_FAILED",
): Promise<ProcessResult> {
  const result = await runProcess(command, args, {
    // The operator's own tool with the operator's own settings: NIX_PATH, NIX_CONFIG, …
    env: process.env as Record<string, string>,
    timeoutMs: BUILD_TIMEOUT_MS,
    maxOutput: 256 * 1024 * 1024,
    signal,
    onErrorLine: onLine,
  });
  if (result.exitCode !== 0) throw new PullError(code, describeNixFailure(result));
  return result;
}

/** Nix says first what is wrong, and then for many lines where. */
function describeNixFailure(result: ProcessResult): string {
  const described = describeFailure(result);
  const error = result.stderr.split("\n").find((line) => line.startsWith("error:"));
  return error === undefined || described.includes(error) ? described : `${error} | ${described}`;
}

import { access, constants, readFile, readlink } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { StorePathInfo } from "../../core/formats/narinfo.ts";
import { isNotFound } from "../../effects/files/missing-file.ts";
import { PATHS_PER_CALL } from "../../effects/nix/nix-environment.ts";
import {
  describeFailure,
  runProcess,
  type ProcessResult,
} from "../../effects/process/subprocess.ts";
import { parseHostsFile, type HostSpec, type SystemSource } from "./host-spec.ts";
import type { PublishOptions } from "./publish-options.ts";
import { parsePathInfos } from "./store-closure.ts";
import { makeDirectory } from "../../effects/files/make-directory.ts";

/** Nix's new command line and flakes, whatever the operator's settings are. */
export const EXPERIMENTAL = ["--extra-experimental-features", "nix-command flakes"];

/** Longest time for a build. Only a program that hangs takes so long. */
const BUILD_TIMEOUT_MS = 24 * 3600 * 1000;

/** How a build is stopped, and who hears of it. */
export interface BuildContext {
  readonly signal: AbortSignal | undefined;
  /** Hears every line that Nix prints. */
  readonly onLine: (line: string) => void;
}

/** The context of a build whose lines are progress of a publish. */
export function buildContext({ signal, onProgress }: PublishOptions): BuildContext {
  return {
    signal,
    onLine: (line) => {
      onProgress({ phase: "nix", line });
    },
  };
}

/** Hears of hosts whose systems are built next, after `at` others. */
export type OnBuild = (hostnames: readonly string[], at: number) => void;

/**
 * Builds every host's system with the operator's own Nix settings and keeps it from the
 * garbage collector by a link below `rootsDirectory`. Systems that need no evaluation are built
 * by one call, so that Nix builds several at a time as its `max-jobs` allows. Gives toplevels
 * by hostname. Throws BUILD_FAILED, TOOL_MISSING, and NOT_A_SYSTEM if one cannot be activated.
 */
export async function buildSystems(
  specs: readonly HostSpec[],
  rootsDirectory: string,
  context: BuildContext,
  onBuild: OnBuild,
): Promise<Map<string, string>> {
  const toplevels = new Map<string, string>();
  const ready = new Map<string, string[]>();
  for (const { hostname, source } of specs) {
    if (source.kind !== "derivation" && source.kind !== "storePath") continue;
    ready.set(source.path, [...(ready.get(source.path) ?? []), hostname]);
  }
  const paths = [...ready.keys()];
  for (let from = 0; from < paths.length; from += PATHS_PER_CALL) {
    const some = paths.slice(from, from + PATHS_PER_CALL);
    const directory = join(rootsDirectory, `realised-${from}`);
    onBuild(
      some.flatMap((path) => ready.get(path) ?? []),
      toplevels.size,
    );
    const built = await realise(some, directory, context);
    for (const [path, toplevel] of built) {
      for (const hostname of ready.get(path) ?? []) toplevels.set(hostname, toplevel);
    }
  }
  for (const spec of specs) {
    const { hostname, source } = spec;
    if (source.kind === "derivation" || source.kind === "storePath") continue;
    onBuild([hostname], toplevels.size);
    const directory = join(rootsDirectory, "evaluated");
    await makeDirectory(directory);
    const link = join(directory, hostname);
    await build(source, link, context);
    toplevels.set(hostname, await readlink(link));
  }
  for (const [hostname, toplevel] of toplevels) await expectSystem(hostname, toplevel);
  return toplevels;
}

async function expectSystem(hostname: string, toplevel: string): Promise<void> {
  const program = join(toplevel, "bin/switch-to-configuration");
  await access(program, constants.X_OK).catch((cause: unknown) => {
    throw new PullError(
      "NOT_A_SYSTEM",
      `${hostname}: expected a NixOS toplevel, found ${toplevel} without an executable ` +
        "bin/switch-to-configuration",
      { cause },
    );
  });
}

/** Builds derivations, or fetches store paths; gives the outputs by derivation or path. */
async function realise(
  paths: readonly string[],
  directory: string,
  context: BuildContext,
): Promise<Map<string, string>> {
  await makeDirectory(directory);
  const link = join(directory, "system");
  await nix("nix-store", ["--realise", ...paths, "--add-root", link, "--indirect"], context);
  // nix-store(1), --add-root: the links of further paths are numbered from 2.
  const links = paths.map((path, at) => [path, at === 0 ? link : `${link}-${at + 1}`] as const);
  return new Map(
    await Promise.all(
      links.map(async ([path, it]): Promise<[string, string]> => [path, await readlink(it)]),
    ),
  );
}

/** Evaluates and builds one system, and lets `link` point at it. */
async function build(
  source: Extract<SystemSource, { kind: "file" | "flake" }>,
  link: string,
  context: BuildContext,
): Promise<void> {
  switch (source.kind) {
    case "file": {
      const attribute = source.attribute === null ? [] : ["-A", source.attribute];
      await nix("nix-build", [resolve(source.file), ...attribute, "--out-link", link], context);
      break;
    }
    case "flake":
      await nix("nix", [...EXPERIMENTAL, "build", source.installable, "--out-link", link], context);
      break;
    default:
      source satisfies never;
  }
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
    # Pass unknown attributes on: the parser refuses them by name.
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

/** Relative sources in a hosts file count from the file's directory. */
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

/** Nix prints the error first, and then a long trace: put the error first. */
function describeNixFailure(result: ProcessResult): string {
  const described = describeFailure(result);
  const error = result.stderr.split("\n").find((line) => line.startsWith("error:"));
  return error === undefined || described.includes(error) ? described : `${error} | ${described}`;
}

import { access, constants, readlink } from "node:fs/promises";
import { join, resolve } from "node:path";
import { PullError } from "../../core/errors.ts";
import type { StorePathInfo } from "../../core/formats/narinfo.ts";
import { inCalls } from "../../effects/nix/nix-environment.ts";
import {
  describeFailure,
  runProcess,
  type ProcessResult,
} from "../../effects/process/subprocess.ts";
import type { HostFailure } from "./host-failure.ts";
import type { HostSpec, SystemSource } from "./host-spec.ts";
import type { PublishOptions } from "./publish-options.ts";
import { parsePathInfos } from "./store-closure.ts";
import { makeDirectory } from "../../effects/files/make-directory.ts";

/** Nix's new command line and flakes, whatever the operator's settings are. */
export const EXPERIMENTAL = ["--extra-experimental-features", "nix-command flakes"];

/**
 * Uses a flake's lock file and never writes it: what is released can be built again from what is
 * committed, and every host of it has the same inputs.
 */
export const LOCKED = ["--no-update-lock-file"];

/** Longest time for a build. Only a program that hangs takes so long. */
const BUILD_TIMEOUT_MS = 24 * 3600 * 1000;

/** How a build is stopped, and who hears of it. */
export interface BuildContext {
  readonly signal: AbortSignal | undefined;
  /** Hears every line that Nix prints. */
  readonly onLine: (line: string) => void;
  /** Further variables of Nix's environment. */
  readonly environment?: Readonly<Record<string, string>>;
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

/** Toplevels by hostname, and the hosts that have none. */
export interface BuiltSystems {
  readonly toplevels: ReadonlyMap<string, string>;
  readonly failed: readonly HostFailure[];
}

/**
 * Builds every host's system with the operator's own Nix settings and keeps it from the
 * garbage collector by a link below `rootsDirectory`. Systems that need no evaluation are built
 * by one call, so that Nix builds several at a time as its `max-jobs` allows. A host that fails
 * does not keep the others from being built. Throws BUILD_FAILED if Nix itself fails,
 * TOOL_MISSING, INTERRUPTED.
 */
export async function buildSystems(
  specs: readonly HostSpec[],
  rootsDirectory: string,
  context: BuildContext,
  onBuild: OnBuild,
): Promise<BuiltSystems> {
  const toplevels = new Map<string, string>();
  const failed: HostFailure[] = [];
  const ready = new Map<string, string[]>();
  for (const { hostname, source } of specs) {
    if (source.kind !== "derivation" && source.kind !== "storePath") continue;
    ready.set(source.path, [...(ready.get(source.path) ?? []), hostname]);
  }
  const paths = [...ready.keys()];
  for (const [at, some] of inCalls(paths).entries()) {
    const directory = join(rootsDirectory, `realised-${at}`);
    const hostsOf = (path: string): readonly string[] => ready.get(path) ?? [];
    onBuild(some.flatMap(hostsOf), toplevels.size);
    const built = await realise(some, directory, context);
    for (const path of some) {
      const result = built.get(path);
      for (const hostname of hostsOf(path)) {
        if (typeof result === "string") toplevels.set(hostname, result);
        else if (result) failed.push({ hostname, error: result });
      }
    }
  }
  for (const spec of specs) {
    const { hostname, source } = spec;
    if (source.kind === "derivation" || source.kind === "storePath") continue;
    onBuild([hostname], toplevels.size);
    const directory = join(rootsDirectory, "evaluated");
    await makeDirectory(directory);
    const link = join(directory, hostname);
    const error = await failureOf(build(source, link, context));
    if (error) failed.push({ hostname, error });
    else toplevels.set(hostname, await readlink(link));
  }
  for (const [hostname, toplevel] of toplevels) {
    const error = await failureOf(expectSystem(toplevel));
    if (!error) continue;
    failed.push({ hostname, error });
    toplevels.delete(hostname);
  }
  return { toplevels, failed };
}

/** The error of a host that failed, or null. Throws what is no host's fault. */
async function failureOf(work: Promise<unknown>): Promise<PullError | null> {
  try {
    await work;
    return null;
  } catch (error) {
    if (isOfHost(error)) return error;
    throw error;
  }
}

function isOfHost(error: unknown): error is PullError {
  return error instanceof PullError && ["BUILD_FAILED", "NOT_A_SYSTEM"].includes(error.code);
}

async function expectSystem(toplevel: string): Promise<void> {
  const program = join(toplevel, "bin/switch-to-configuration");
  await access(program, constants.X_OK).catch((cause: unknown) => {
    throw new PullError(
      "NOT_A_SYSTEM",
      `expected a NixOS toplevel, found ${toplevel} without an executable ` +
        "bin/switch-to-configuration",
      { cause },
    );
  });
}

/**
 * Builds derivations, or fetches store paths; gives the output of each, or why there is none. Nix
 * goes on with the others if one fails.
 */
async function realise(
  paths: readonly string[],
  directory: string,
  context: BuildContext,
): Promise<Map<string, string | PullError>> {
  await makeDirectory(directory);
  const result = await runNix("nix-store", ["--realise", "--keep-going", ...paths], context);
  const failures = result.exitCode === 0 ? null : await failedAmong(paths, result, context);
  const good = paths.filter((path) => !failures?.has(path));
  const built = await rootedOutputs(good, join(directory, "system"), context);
  return new Map<string, string | PullError>([...(failures ?? []), ...built]);
}

/** The outputs of derivations that are built, kept by links that begin with `link`. */
async function rootedOutputs(
  paths: readonly string[],
  link: string,
  context: BuildContext,
): Promise<[string, string][]> {
  if (paths.length === 0) return [];
  await nix("nix-store", ["--realise", ...paths, "--add-root", link, "--indirect"], context);
  // nix-store(1), --add-root: the links of further paths are numbered from 2.
  const links = paths.map((path, at) => [path, at === 0 ? link : `${link}-${at + 1}`] as const);
  return Promise.all(
    links.map(async ([path, it]): Promise<[string, string]> => [path, await readlink(it)]),
  );
}

/**
 * The paths that are not there after a build that failed, each with the errors of what it is built
 * from. Throws BUILD_FAILED if all of them are there.
 */
async function failedAmong(
  paths: readonly string[],
  result: ProcessResult,
  context: BuildContext,
): Promise<Map<string, PullError>> {
  const missing: string[] = [];
  for (const path of paths) if (!(await isBuilt(path, context))) missing.push(path);
  if (missing.length === 0) throw new PullError("BUILD_FAILED", describeNixFailure(result));
  const causes = new Map<string, string[]>();
  for (const { text: said, derivation } of buildErrorsIn(result.stderr)) {
    const text = await withBuildLog(said, derivation, context);
    const query = ["--query", "--referrers-closure", derivation];
    const { stdout } = await runNix("nix-store", query, context);
    for (const path of stdout.split("\n")) causes.set(path, [...(causes.get(path) ?? []), text]);
  }
  return new Map(
    missing.map((path) => {
      const message = causes.get(path)?.slice(0, MAX_CAUSES).join(" | ");
      return [path, new PullError("BUILD_FAILED", message ?? describeNixFailure(result))];
    }),
  );
}

/** A host may lack many packages for one reason. */
const MAX_CAUSES = 3;

async function isBuilt(path: string, context: BuildContext): Promise<boolean> {
  const outputs = path.endsWith(".drv")
    ? (await runNix("nix-store", ["--query", "--outputs", path], context)).stdout.trim().split("\n")
    : [path];
  const { exitCode } = await runNix("nix-store", ["--check-validity", ...outputs], context);
  return exitCode === 0;
}

/** The derivations whose own builders failed, by what Nix says of them. */
function buildErrorsIn(stderr: string): { text: string; derivation: string }[] {
  const lines = stderr.split("\n");
  return lines.flatMap((line, at) => {
    const derivation = /^error: (?!.*dependenc)[^']*'([^']+\.drv)'(?!,)/.exec(line)?.[1];
    if (derivation === undefined || line.startsWith("error: build of ")) return [];
    return [{ text: errorTextIn(lines.slice(at).join("\n")) ?? line, derivation }];
  });
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
      await nix(
        "nix",
        [...EXPERIMENTAL, "build", ...LOCKED, source.installable, "--out-link", link],
        context,
      );
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

/** Runs one of Nix's programs as the operator would. Throws `code`, TOOL_MISSING, INTERRUPTED. */
export async function nix(
  command: string,
  args: readonly string[],
  context: BuildContext,
  code: "BUILD_FAILED" | "PUBLISH_FAILED" = "BUILD_FAILED",
): Promise<ProcessResult> {
  const all = await runNix(command, args, context);
  if (all.exitCode === 0) return all;
  const result = { ...all, stderr: withoutStatistics(all.stderr) };
  const [first] = buildErrorsIn(result.stderr);
  throw new PullError(
    code,
    first ? await withBuildLog(first.text, first.derivation, context) : describeNixFailure(result),
  );
}

/** Nix's statistics are JSON. No line break is behind them in Nix 2.8. */
function withoutStatistics(stderr: string): string {
  return stderr.replace(/^\{\n(?:\s.*\n)*\}/m, "");
}

/** So many of a build log's last lines are told, if Nix does not do so itself. */
const MAX_LOG_LINES = 5;

/** What Nix says of a build that failed, the last lines of its log, and how to see all of it. */
async function withBuildLog(
  text: string,
  derivation: string,
  context: BuildContext,
): Promise<string> {
  const all = `all of its log: nix log ${derivation}`;
  if (/last \d+ log lines/.test(text)) return `${text} | ${all}`;
  const { exitCode, stdout } = await runNix("nix-store", ["--read-log", derivation], context);
  const lines = stdout.split("\n").filter((line) => line.trim() !== "");
  if (exitCode !== 0 || lines.length === 0) return text;
  return [text, ...lines.slice(-MAX_LOG_LINES).map((line) => `> ${line}`), all].join(" | ");
}

/** The same, whatever its exit code. Throws TOOL_MISSING, INTERRUPTED. */
function runNix(
  command: string,
  args: readonly string[],
  { signal, onLine, environment }: BuildContext,
): Promise<ProcessResult> {
  return runProcess(command, args, {
    // The operator's own tool with the operator's own settings: NIX_PATH, NIX_CONFIG, …
    env: { ...(process.env as Record<string, string>), ...environment },
    timeoutMs: BUILD_TIMEOUT_MS,
    maxOutput: 256 * 1024 * 1024,
    signal,
    onErrorLine: onLine,
  });
}

/** An error may quote a whole configuration. */
const MAX_ERROR_LINES = 8;

/**
 * What Nix says is wrong. Nix 2.8 prints "error: TEXT" at the start of a line. Later ones print
 * "error:" alone, then how they came there, and at the end the text, indented.
 */
export function errorTextIn(stderr: string): string | null {
  const lines = stderr.split("\n");
  const inner = lines.findLastIndex((line) => /^\s+error: \S/.test(line));
  const at = inner >= 0 ? inner : lines.findIndex((line) => /^error: \S/.test(line));
  if (at < 0) return null;
  const indent = indentOf(lines[at] ?? "");
  const more = lines.slice(at + 1);
  const end = more.findIndex(
    (line) =>
      line.trim() === "" ||
      line.startsWith("error:") ||
      /^\s*(?:…|at |\(use |For full logs)/.test(line) ||
      indentOf(line) < Math.max(indent, 1),
  );
  const text = [lines[at] ?? "", ...(end < 0 ? more : more.slice(0, end))];
  const shown = text.map((line) => line.trim());
  if (shown.length <= MAX_ERROR_LINES) return shown.join(" | ");
  // Of a build's log the end says why.
  const [first = "", second = ""] = shown;
  const kept = /^last \d+ log lines/.test(second)
    ? [first, second, "…", ...shown.slice(2 - MAX_ERROR_LINES)]
    : [...shown.slice(0, MAX_ERROR_LINES), "…"];
  return kept.join(" | ");
}

function indentOf(line: string): number {
  return line.length - line.trimStart().length;
}

function describeNixFailure(result: ProcessResult): string {
  const error = errorTextIn(result.stderr);
  // An exit code says nothing that the error does not say; a signal or a time limit does.
  if (error !== null && result.exitCode !== null) return withAdvice(error);
  return describeFailure(result);
}

/** What Nix says, and what the operator may do about a lock file that lacks an input. */
function withAdvice(error: string): string {
  return error.includes("requires lock file changes")
    ? `${error} | run \`nix flake lock\` there, and commit flake.lock`
    : error;
}

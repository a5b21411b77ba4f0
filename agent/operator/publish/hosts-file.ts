import { readFile, stat } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { dirname, resolve } from "node:path";
import * as z from "zod";
import { PullError, toPullError } from "../../core/errors.ts";
import { ifMissing, isNotFound } from "../../effects/files/missing-file.ts";
import { parallelMap } from "../../effects/process/parallel-map.ts";
import type { HostFailure, HostsInFile } from "./host-failure.ts";
import { parseHostsFile, type HostSpec } from "./host-spec.ts";
import { nix, type BuildContext } from "./nix-builder.ts";

/** How a hosts file is evaluated. */
export interface EvaluationContext extends BuildContext {
  /** Memory that all processes of Nix together should need at most, bytes; half the machine's. */
  readonly memory?: number | undefined;
  /** Hears the names of all hosts before any is evaluated. What it throws ends the reading. */
  readonly onNames: (names: readonly string[]) => void;
  /** Hears how many hosts of how many are evaluated. */
  readonly onEvaluated: (done: number, of: number) => void;
}

/** A host of a NixOS module tree takes a quarter of a gigabyte beside what all hosts share. */
const FIRST_CHUNK = 4;
/** What a process takes with that many hosts, bytes, by measurement with real modules. */
const CHUNK_MEMORY = 1.5 * 1024 ** 3;

/**
 * Reads a hosts file, JSON or Nix. A Nix file is an attribute set (or a function of `{}` to one) of
 * hostnames to systems, or to `{ system, activation, … }`. Its hosts are evaluated a few at a time,
 * each chunk by a process of its own, since a process that evaluates a whole fleet needs the memory
 * of all its hosts at once; and one host that fails does not hide the others. Throws
 * CONFIG_NOT_FOUND, CONFIG_INVALID, TOOL_MISSING, INTERRUPTED, and BUILD_FAILED if the file itself
 * cannot be evaluated.
 */
export async function readHostsFile(
  file: string,
  context: EvaluationContext,
): Promise<HostsInFile> {
  if (!file.endsWith(".nix")) {
    const hosts = await readJson(file);
    context.onNames(hosts.map(({ hostname }) => hostname));
    return { hosts, failed: [] };
  }
  const names = await evaluate(NAMES_EXPRESSION, namesSchema, { file, context });
  context.onNames(names.value);
  const results = await evaluateInChunks(file, names.value, context);
  const found: Record<string, unknown> = {};
  const failed: HostFailure[] = [];
  for (const name of names.value) {
    const result = results.get(name);
    if (result instanceof PullError) failed.push({ hostname: name, error: result });
    else found[name] = result;
  }
  return { hosts: parseHostsFile(found, file), failed };
}

/** Throws CONFIG_NOT_FOUND if there is no hosts file, CONFIG_INVALID if a JSON one is wrong. */
export async function expectHostsFile(file: string): Promise<void> {
  if (!file.endsWith(".nix")) await readJson(file);
  else if (!(await ifMissing(stat(file), null))) {
    throw new PullError(
      "CONFIG_NOT_FOUND",
      `--hosts: expected a hosts file at ${file}, found none`,
    );
  }
}

async function readJson(file: string): Promise<HostSpec[]> {
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    if (!isNotFound(cause)) throw cause;
    throw new PullError(
      "CONFIG_NOT_FOUND",
      `--hosts: expected a hosts file at ${file}, found none`,
      {
        cause,
      },
    );
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new PullError(
      "CONFIG_INVALID",
      `--hosts: ${file}: expected JSON, or a Nix file whose name ends in .nix`,
      { cause },
    );
  }
  return parseHostsFile(json, file).map((spec) => besideFile(spec, dirname(resolve(file))));
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

/**
 * Evaluates every host; gives what it is, or the BUILD_FAILED of it. A chunk grows as long as the
 * heap that Nix needed for the one before leaves room. If a chunk fails, each of its hosts is
 * evaluated alone, to find whose fault it is.
 */
async function evaluateInChunks(
  file: string,
  names: readonly string[],
  context: EvaluationContext,
): Promise<Map<string, unknown>> {
  const memory = context.memory ?? totalmem() / 2;
  const atOnce = Math.max(1, Math.min(availableParallelism(), Math.floor(memory / CHUNK_MEMORY)));
  const results = new Map<string, unknown>();
  let size = FIRST_CHUNK;
  let next = 0;
  const take = (count: number): string[] => names.slice(next, (next += count));
  const worker = async (): Promise<void> => {
    while (next < names.length) {
      const chunk = take(size);
      const { heap } = await evaluateChunk({ file, context, results }, chunk);
      // Doubled at most, since hosts differ.
      const fitting = heap > 0 ? Math.floor((chunk.length * memory) / atOnce / heap) : chunk.length;
      size = Math.max(1, Math.min(chunk.length * 2, fitting));
      context.onEvaluated(results.size, names.length);
    }
  };
  await parallelMap(Array.from({ length: atOnce }), worker, { atOnce });
  return results;
}

/** Puts the hosts of one chunk into `results`; gives Nix's heap, bytes, or 0 if it is not known. */
async function evaluateChunk(
  work: {
    readonly file: string;
    readonly context: EvaluationContext;
    readonly results: Map<string, unknown>;
  },
  names: readonly string[],
): Promise<{ heap: number }> {
  try {
    const { value, heap } = await evaluate(HOSTS_EXPRESSION, hostsSchema, {
      ...work,
      names,
    });
    for (const name of names) work.results.set(name, value[name]);
    return { heap };
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code !== "BUILD_FAILED") throw error;
    if (names.length === 1) work.results.set(names[0] ?? "", error);
    else for (const name of names) await evaluateChunk(work, [name]);
    return { heap: 0 };
  }
}

const namesSchema = z.array(z.string());
const hostsSchema = z.record(z.string(), z.unknown());

/** What both expressions begin with. */
const HOSTS_OF_FILE = `
{ file, names ? "[ ]" }:
let
  value = import (/. + file);
  hosts = if builtins.isFunction value then value { } else value;
in
`;

/** Evaluates to the hosts' names, without evaluating a host. */
const NAMES_EXPRESSION = `${HOSTS_OF_FILE}
builtins.attrNames hosts
`;

/** Evaluates to `{ NAME = { system = "….drv"; activation = …; … }; }` of the named hosts. */
const HOSTS_EXPRESSION = `${HOSTS_OF_FILE}
let
  isSystem = host: host.type or null == "derivation";
  toSpec =
    host:
    if isSystem host then
      { system = host.drvPath; }
    else
      # Pass unknown attributes on: the parser refuses them by name.
      host // { system = host.system.drvPath; };
in
builtins.listToAttrs (
  map (name: {
    inherit name;
    value = toSpec (builtins.getAttr name hosts);
  }) (builtins.fromJSON names)
)
`;

async function evaluate<T>(
  expression: string,
  schema: z.ZodType<T>,
  {
    file,
    context,
    names = [],
  }: { file: string; context: EvaluationContext; names?: readonly string[] },
): Promise<{ value: T; heap: number }> {
  const { stdout, stderr } = await nix(
    "nix-instantiate",
    [
      "--eval",
      "--strict",
      "--json",
      // Writes the derivations, so that they can be realised afterwards.
      "--read-write-mode",
      ...["--argstr", "file", resolve(file), "--argstr", "names", JSON.stringify(names)],
      ...["--expr", expression],
    ],
    {
      ...context,
      environment: { NIX_SHOW_STATS: "1" },
      // The statistics are JSON and nothing for a person.
      onLine: (line) => {
        if (!/^(?:[{}]|\s+["}])/.test(line)) context.onLine(line);
      },
    },
  );
  return { value: schema.parse(JSON.parse(stdout)), heap: heapIn(stderr) };
}

/** The heap in Nix's statistics (`NIX_SHOW_STATS`), bytes; 0 if there are none. */
function heapIn(stderr: string): number {
  return Number(/"heapSize": (\d+)/.exec(stderr)?.[1] ?? 0);
}

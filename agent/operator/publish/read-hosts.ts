import { availableParallelism, totalmem } from "node:os";
import { PullError, toPullError } from "../../core/errors.ts";
import { parallelMap } from "../../effects/process/parallel-map.ts";
import { evaluateByJobs } from "./eval-jobs.ts";
import { flakeHosts } from "./flake-hosts.ts";
import type { HostFailure, HostsInFile } from "./host-failure.ts";
import { filterHosts, type HostFilter } from "./host-filter.ts";
import type { HostSet } from "./host-set.ts";
import { parseHostsFile, type HostSpec } from "./host-spec.ts";
import { expectHostsFile, fileHosts, readJsonHosts } from "./hosts-file.ts";
import type { BuildContext } from "./nix-builder.ts";

/** Where hosts are read. */
export type HostsSource =
  | { readonly kind: "file"; readonly file: string }
  | {
      readonly kind: "flake";
      readonly reference: string;
      readonly attribute: string;
      /** Only this host, or those that this pattern fits; all if null. */
      readonly name: string | null;
    };

/** Which hosts are read, and how they are evaluated. */
export interface EvaluationContext extends BuildContext {
  readonly filter: HostFilter;
  /** Memory that all processes of Nix together should need at most, bytes; half the machine's. */
  readonly memory?: number | undefined;
  /** Hears the names of all hosts before any is evaluated. What it throws ends the reading. */
  readonly onNames: (names: readonly string[]) => void;
  /** Hears which hosts a process begins to evaluate, and how many of how many are done. */
  readonly onEvaluate: (names: readonly string[], done: number, of: number) => void;
  /** Hears of hosts whose own configuration says that they are not published. */
  readonly onLeftOut: (names: readonly string[]) => void;
}

const CONFIGURATIONS = "nixosConfigurations";

/** Reads `--hosts`: FILE, or FLAKE#ATTRIBUTE of a set of hosts. */
export function parseHostsSource(text: string): HostsSource {
  const hash = text.indexOf("#");
  if (hash < 0 || /\.(nix|json)$/.test(text)) return { kind: "file", file: text };
  const [reference, attribute] = [text.slice(0, hash), text.slice(hash + 1)];
  return {
    ...{ kind: "flake", reference: reference || "." },
    ...{ attribute: attribute || CONFIGURATIONS, name: null },
  };
}

/** Reads `--flake`: FLAKE for all its configurations, or FLAKE#NAME. */
export function parseFlakeOption(text: string): HostsSource {
  const hash = text.indexOf("#");
  const reference = hash < 0 ? text : text.slice(0, hash);
  const name = hash < 0 ? "" : text.slice(hash + 1).replace(/^nixosConfigurations(\.|$)/, "");
  return {
    ...{ kind: "flake", reference: reference || ".", attribute: CONFIGURATIONS },
    name: name || null,
  };
}

/** Throws what can be known to be wrong without Nix: CONFIG_NOT_FOUND, CONFIG_INVALID. */
export async function expectHostsSources(sources: readonly HostsSource[]): Promise<void> {
  for (const source of sources) if (source.kind === "file") await expectHostsFile(source.file);
}

/** Hosts of one source that a filter leaves: read already, or still to be evaluated. */
interface Selected {
  readonly set: HostSet | null;
  readonly names: readonly string[];
  readonly read: readonly HostSpec[];
}

/**
 * Reads the hosts of files and flakes. All names come first; then the hosts are evaluated a few at a
 * time, each chunk by a process of its own, since a process that evaluates a whole fleet needs the
 * memory of all its hosts at once; and one host that fails does not hide the others. Throws
 * CONFIG_NOT_FOUND, CONFIG_INVALID, USAGE, TOOL_MISSING, INTERRUPTED, and BUILD_FAILED if a file or a
 * flake itself cannot be evaluated.
 */
export async function readHosts(
  sources: readonly HostsSource[],
  context: EvaluationContext,
): Promise<HostsInFile> {
  const selected = await select(sources, context);
  context.onNames(selected.flatMap(({ names }) => names));
  const hosts: HostSpec[] = [];
  const failed: HostFailure[] = [];
  const leftOut: string[] = [];
  for (const { set, names, read } of selected) {
    hosts.push(...read);
    if (!set) continue;
    const results = await evaluate(set, names, context);
    const found: Record<string, unknown> = {};
    for (const name of names) {
      const result = results.get(name);
      if (result instanceof PullError) failed.push({ hostname: name, error: result });
      else if (result === null) leftOut.push(name);
      else found[name] = result;
    }
    hosts.push(...parseHostsFile(found, set.label));
  }
  if (leftOut.length > 0) context.onLeftOut(leftOut);
  return { hosts, failed };
}

/** Applies the filter to each source's names. `--only` and `--except` are over all of them. */
async function select(
  sources: readonly HostsSource[],
  context: EvaluationContext,
): Promise<Selected[]> {
  const all: Selected[] = [];
  for (const source of sources) {
    if (source.kind === "file" && !source.file.endsWith(".nix")) {
      const read = await readJsonHosts(source.file);
      all.push({ set: null, names: read.map(({ hostname }) => hostname), read });
      continue;
    }
    const set =
      source.kind === "file"
        ? fileHosts(source.file)
        : flakeHosts(source.reference, source.attribute);
    const names = await set.names(context);
    const named = source.kind === "flake" && source.name !== null ? [source.name] : [];
    const own = filterHosts(names, { only: named, except: [] }, set.label);
    all.push({ set, names: own, read: [] });
  }
  const label = sources.map(labelOf).join(" and ");
  const every = all.flatMap(({ names }) => names);
  const wanted = new Set(filterHosts(every, context.filter, label));
  return all.map(({ set, names, read }) => ({
    set,
    names: names.filter((name) => wanted.has(name)),
    read: read.filter(({ hostname }) => wanted.has(hostname)),
  }));
}

function labelOf(source: HostsSource): string {
  return source.kind === "file" ? source.file : `${source.reference}#${source.attribute}`;
}

/** Evaluates hosts by nix-eval-jobs, if it is there, and in chunks what that leaves. */
async function evaluate(
  set: HostSet,
  names: readonly string[],
  context: EvaluationContext,
): Promise<Map<string, unknown>> {
  const memory = context.memory ?? totalmem() / 2;
  context.onEvaluate(names, 0, names.length);
  const found = await evaluateByJobs(set, names, { ...context, memory });
  const others = names.filter((name) => !found.has(name));
  if (others.length === 0) return found;
  const more = await evaluateInChunks(set, others, { ...context, memory });
  return new Map([...found, ...more]);
}

/** Hosts of the second chunk at most. A NixOS host takes a quarter of a gigabyte beside what all share. */
const FIRST_CHUNK = 4;

/**
 * Evaluates every host; gives what it is, or the BUILD_FAILED of it. The first host is evaluated
 * alone. How many then go into a process, and how many processes run at a time, follows from the
 * heap that Nix needed before. If a chunk fails, each of its hosts is evaluated alone, to find whose
 * fault it is.
 */
async function evaluateInChunks(
  set: HostSet,
  names: readonly string[],
  context: EvaluationContext & { readonly memory: number },
): Promise<Map<string, unknown>> {
  const { memory } = context;
  const results = new Map<string, unknown>();
  let size = 1;
  let next = 0;
  const evaluateNext = async (): Promise<number> => {
    const chunk = names.slice(next, (next += size));
    context.onEvaluate(chunk, results.size, names.length);
    return (await evaluateChunk({ set, context, results }, chunk)) / chunk.length;
  };
  const needed = await evaluateNext();
  const fitting = needed > 0 ? Math.floor(memory / needed) : FIRST_CHUNK;
  const atOnce = Math.max(1, Math.min(availableParallelism(), fitting));
  size = Math.max(1, Math.min(FIRST_CHUNK, Math.floor(fitting / atOnce)));
  const worker = async (): Promise<void> => {
    while (next < names.length) {
      const own = size;
      const heapOfHost = await evaluateNext();
      // Doubled at most, since hosts differ.
      const most = heapOfHost > 0 ? Math.floor(memory / atOnce / heapOfHost) : own;
      size = Math.max(1, Math.min(own * 2, most));
    }
  };
  await parallelMap(Array.from({ length: atOnce }), worker, { atOnce });
  context.onEvaluate([], results.size, names.length);
  return results;
}

/** Puts the hosts of one chunk into `results`; gives Nix's heap, bytes, or 0 if it is not known. */
async function evaluateChunk(
  work: {
    readonly set: HostSet;
    readonly context: EvaluationContext;
    readonly results: Map<string, unknown>;
  },
  names: readonly string[],
): Promise<number> {
  try {
    const { hosts, heap } = await work.set.evaluate(names, work.context);
    for (const name of names) work.results.set(name, hosts[name]);
    return heap;
  } catch (thrown) {
    const error = toPullError(thrown);
    if (error.code !== "BUILD_FAILED") throw error;
    if (names.length === 1) work.results.set(names[0] ?? "", error);
    else for (const name of names) await evaluateChunk(work, [name]);
    return 0;
  }
}

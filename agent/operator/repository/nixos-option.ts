import { availableParallelism, totalmem } from "node:os";
import { resolve } from "node:path";
import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import { nixName, type Json } from "../../core/publish/nix-text.ts";
import { suggestNames } from "../../core/publish/option-path.ts";
import { describeIssues } from "../../core/text/schema-issues.ts";
import { parallelMap } from "../../effects/process/parallel-map.ts";
import { EXPERIMENTAL, nix, type BuildContext } from "../publish/nix-builder.ts";
import { NAMES_EXPRESSION, OPTION_EXPRESSION } from "./option-expression.ts";

/** Where hosts are configured. */
export type ConfigurationSource =
  /** A Nix file with `{ NAME = { config, options }; }`, or that of one host alone. */
  | { readonly kind: "file"; readonly file: string }
  /** The `nixosConfigurations` of a flake. */
  | { readonly kind: "flake"; readonly reference: string };

const json: z.ZodType<Json> = z.json();
const definitionSchema = z.strictObject({
  file: z.string(),
  value: json.optional(),
  /** As in nixpkgs: 100 if nothing else is said, 50 for mkForce, 1000 for mkDefault. */
  priority: z.int().optional(),
  /** Another definition has a stronger priority, so this one does not count. */
  overridden: z.literal(true).optional(),
});

/** What an option is on one host. */
const optionSchema = z.strictObject({
  kind: z.literal("option"),
  value: json,
  type: z.string().optional(),
  default: json.optional(),
  /** The text that documents the default, if the default is an expression. */
  defaultText: z.string().optional(),
  description: z.string().optional(),
  /** What gives it a value, with the files; those that another one overrides come last. */
  definitions: z.array(definitionSchema),
  declarations: z.array(z.string()),
});

/** A part of an option's value that fails, by its path. */
export interface FailedPart {
  readonly path: string;
  readonly message: string;
}

/** An option's value and origin on one host. */
export interface OptionOnHost extends Omit<z.infer<typeof optionSchema>, "kind"> {
  /** Parts of the value, there "«error»", with what Nix says of them; the first few. */
  readonly failedParts: readonly FailedPart[];
}

const noneSchema = z.discriminatedUnion("kind", [
  /** It exists, but nothing gives it a value. */
  z.strictObject({ kind: z.literal("undefined"), type: z.string().optional() }),
  /** A name in the path does not exist; `names` exist in its place. */
  z.strictObject({
    kind: z.literal("unknown"),
    depth: z.int().nonnegative(),
    names: z.array(z.string()),
  }),
  /** The path leads to options, not to one. */
  z.strictObject({ kind: z.literal("set"), names: z.array(z.string()) }),
]);
type NoOption = z.infer<typeof noneSchema>;

const answersSchema = z.record(z.string(), z.union([optionSchema, noneSchema]));
type Answer = z.infer<typeof answersSchema>[string];

/** An option's value and origin on the hosts asked for, by hostname. */
export interface OptionQuery {
  readonly source: ConfigurationSource;
  readonly names: readonly string[];
  /** One host; all of them if absent. */
  readonly hostname?: string | undefined;
}

/** What each host answers, by hostname: the option, or why there is none. */
export type OptionAnswers = ReadonlyMap<string, OptionOnHost | PullError>;

/**
 * Asks the hosts for an option. Every few hosts are evaluated by a process of their own, so that a
 * fleet does not need the memory of all its hosts at once, and one that fails does not keep the
 * others from answering. The hostname is "" if the configuration is that of a single host. The
 * error of a host is OPTION_UNKNOWN with names that may be meant, OPTION_UNDEFINED, or BUILD_FAILED
 * with what Nix says. Throws USAGE, TOOL_MISSING, INTERRUPTED, and BUILD_FAILED if the hosts' names
 * cannot be evaluated.
 */
export async function evaluateOption(
  { source, names, hostname }: OptionQuery,
  context: BuildContext,
): Promise<OptionAnswers> {
  const evaluation = { source, names, context };
  const known = await evaluate(NAMES_EXPRESSION, z.array(z.string()), evaluation, []);
  if (hostname !== undefined && !known.includes(hostname)) {
    throw new PullError(
      "USAGE",
      `--host: the configuration has no host ${hostname}; it has ${known.filter(Boolean).join(", ") || "no names of hosts"}`,
    );
  }
  const asked = hostname === undefined ? known : [hostname];
  const chunks = Array.from({ length: Math.ceil(asked.length / CHUNK) }, (_, at) =>
    asked.slice(at * CHUNK, (at + 1) * CHUNK),
  );
  const atOnce = Math.max(
    1,
    Math.min(availableParallelism(), Math.floor(totalmem() / 2 / CHUNK_MEMORY)),
  );
  const answers = await parallelMap(chunks, (chunk) => answersOf(chunk, evaluation), { atOnce });
  return new Map(answers.flat());
}

/** Hosts that one process evaluates. */
const CHUNK = 4;
/** What a process takes with that many hosts, bytes, by measurement with real modules. */
const CHUNK_MEMORY = 1.5 * 1024 ** 3;

interface Evaluation {
  readonly source: ConfigurationSource;
  readonly names: readonly string[];
  readonly context: BuildContext;
}

/**
 * The answers of a chunk. If the chunk fails, each host is evaluated alone, to find which one it is; if
 * the host fails, once more without the details that its value does not need.
 */
async function answersOf(
  hosts: readonly string[],
  evaluation: Evaluation,
): Promise<[string, OptionOnHost | PullError][]> {
  try {
    return await finished(await evaluateHosts(hosts, evaluation, "yes"), evaluation);
  } catch (error) {
    if (!isOfHost(error)) throw error;
    if (hosts.length > 1) {
      const alone: [string, OptionOnHost | PullError][] = [];
      for (const host of hosts) alone.push(...(await answersOf([host], evaluation)));
      return alone;
    }
  }
  try {
    return await finished(await evaluateHosts(hosts, evaluation, ""), evaluation);
  } catch (error) {
    if (!isOfHost(error)) throw error;
    return hosts.map((host) => [host, error]);
  }
}

function isOfHost(error: unknown): error is PullError {
  return error instanceof PullError && error.code === "BUILD_FAILED";
}

function evaluateHosts(
  hosts: readonly string[],
  evaluation: Evaluation,
  details: "yes" | "",
): Promise<Record<string, Answer>> {
  return evaluate(OPTION_EXPRESSION, answersSchema, evaluation, [
    ...["--argstr", "hosts", JSON.stringify(hosts)],
    ...["--argstr", "path", JSON.stringify(evaluation.names)],
    ...["--argstr", "details", details],
  ]);
}

/** Makes refusals errors, and asks what the parts of values that fail fail with. */
async function finished(
  answers: Record<string, Answer>,
  evaluation: Evaluation,
): Promise<[string, OptionOnHost | PullError][]> {
  const results: [string, OptionOnHost | PullError][] = [];
  for (const [host, answer] of Object.entries(answers)) {
    if (answer.kind === "option") {
      const { kind: _, ...option } = answer;
      results.push([host, { ...option, failedParts: await failedParts(host, option, evaluation) }]);
    } else {
      const near = answer.kind === "unknown" ? await nearPath(host, answer, evaluation) : null;
      results.push([host, refusalOf(answer, evaluation.names, near)]);
    }
  }
  return results;
}

/** So many names of a path are corrected. */
const MAX_CORRECTED = 4;

/**
 * The path that may be meant, whose names are corrected one after the other, or null. Whether it exists is
 * known once it was asked for.
 */
async function nearPath(
  host: string,
  answer: Extract<NoOption, { kind: "unknown" }>,
  evaluation: Evaluation,
): Promise<string[] | null> {
  let names = [...evaluation.names];
  let unknown = answer;
  for (let corrected = 0; corrected < MAX_CORRECTED; corrected++) {
    const [best] = suggestNames(names[unknown.depth] ?? "", unknown.names);
    if (best === undefined) return null;
    names = names.with(unknown.depth, best);
    // Nothing is behind the last name.
    if (unknown.depth === names.length - 1) return names;
    const next = await evaluateHosts([host], { ...evaluation, names }, "").catch(
      (error: unknown): Record<string, Answer> => {
        if (!isOfHost(error)) throw error;
        return {};
      },
    );
    const found = next[host];
    if (found?.kind !== "unknown") return names;
    unknown = found;
  }
  return null;
}

/** Of so many parts that fail it is asked why. */
const MAX_FAILED_PARTS = 3;

async function failedParts(
  host: string,
  { value }: { value: Json },
  evaluation: Evaluation,
): Promise<FailedPart[]> {
  const parts: FailedPart[] = [];
  for (const inner of errorsIn(value).slice(0, MAX_FAILED_PARTS)) {
    const names = [...evaluation.names, ...inner];
    try {
      await evaluateHosts([host], { ...evaluation, names }, "");
    } catch (error) {
      if (!isOfHost(error)) throw error;
      parts.push({ path: pathOf(names), message: error.message });
    }
  }
  return parts;
}

/** The paths of the parts of a value that failed. */
function errorsIn(value: Json): string[][] {
  if (value === "«error»") return [[]];
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([name, part]) =>
    errorsIn(part).map((path) => [name, ...path]),
  );
}

async function evaluate<T>(
  expression: string,
  schema: z.ZodType<T>,
  { source, context }: Evaluation,
  args: readonly string[],
): Promise<T> {
  const strings = {
    file: source.kind === "file" ? resolve(source.file) : "",
    flake: source.kind === "flake" ? flakeReference(source.reference) : "",
  };
  const { stdout } = await nix(
    "nix-instantiate",
    [
      ...EXPERIMENTAL,
      ...["--eval", "--strict", "--json", "--expr", expression],
      ...Object.entries(strings).flatMap(([name, value]) => ["--argstr", name, value]),
      ...args,
    ],
    context,
  );
  const parsed = schema.safeParse(parseJson(stdout));
  if (parsed.success) return parsed.data;
  throw new PullError(
    "BUILD_FAILED",
    `expected an option from Nix, found something else: ${describeIssues(parsed.error, {})}`,
  );
}

/** Makes a directory's path absolute. Other references stay as they are. */
function flakeReference(reference: string): string {
  return /^(?:\.|\/)/.test(reference) ? resolve(reference) : reference;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new PullError("BUILD_FAILED", "Nix printed no JSON", { cause });
  }
}

/** A path of attributes as a person writes it. */
function pathOf(names: readonly string[]): string {
  return names.map((name) => (/^\d+$/.test(name) ? name : nixName(name))).join(".");
}

/** So many names are listed, if none of them is like the one that was asked for. */
const MAX_LISTED = 12;

/** Why a host has no such option; `near` is the path that is likeliest meant. */
function refusalOf(
  answer: NoOption,
  names: readonly string[],
  near: readonly string[] | null,
): PullError {
  const path = pathOf(names);
  switch (answer.kind) {
    case "undefined":
      return new PullError(
        "OPTION_UNDEFINED",
        `${path} has no value: nothing defines it, and it has no default`,
      );
    case "set":
      return new PullError(
        "OPTION_UNKNOWN",
        `${path} is no option but a set of: ${answer.names.join(", ")}`,
      );
    case "unknown": {
      const parents = names.slice(0, answer.depth);
      const rest = names.slice(answer.depth + 1);
      const suggested = suggestNames(names[answer.depth] ?? "", answer.names).map((name, at) =>
        pathOf(at === 0 && near ? near : [...parents, name, ...rest]),
      );
      const few = answer.names.length > 0 && answer.names.length <= MAX_LISTED;
      const listed = `; ${pathOf(parents) || "the configuration"} has ${answer.names.map((name) => pathOf([name])).join(", ")}`;
      const meant =
        suggested.length > 0 ? `; perhaps ${suggested.join(" or ")}` : few ? listed : "";
      return new PullError("OPTION_UNKNOWN", `there is no option ${path}${meant}`);
    }
    default:
      return answer satisfies never;
  }
}

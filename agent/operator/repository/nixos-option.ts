import { resolve } from "node:path";
import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import { nixName, type Json } from "../../core/publish/nix-text.ts";
import { suggestNames } from "../../core/publish/option-path.ts";
import { describeIssues } from "../../core/text/schema-issues.ts";
import { EXPERIMENTAL, nix, type BuildContext } from "../publish/nix-builder.ts";

/** Where hosts are configured. */
export type ConfigurationSource =
  /** A Nix file with `{ NAME = { config, options }; }`, or that of one host alone. */
  | { readonly kind: "file"; readonly file: string }
  /** The `nixosConfigurations` of a flake. */
  | { readonly kind: "flake"; readonly reference: string };

const json: z.ZodType<Json> = z.json();
const definitionSchema = z.strictObject({ file: z.string(), value: json.optional() });

/** What an option is on one host. */
const optionSchema = z.strictObject({
  kind: z.literal("option"),
  value: json,
  type: z.string().optional(),
  default: json.optional(),
  /** The text that documents the default, if the default is an expression. */
  defaultText: z.string().optional(),
  description: z.string().optional(),
  /** Files that give it a value, each with the value. */
  definitions: z.array(definitionSchema),
  declarations: z.array(z.string()),
});
export type OptionOnHost = Omit<z.infer<typeof optionSchema>, "kind">;

const answerSchema = z.discriminatedUnion("kind", [
  optionSchema,
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
const answersSchema = z.union([
  z.strictObject({ hosts: z.record(z.string(), answerSchema) }),
  z.strictObject({ missing: z.string(), known: z.array(z.string()) }),
]);

/**
 * Looks an option up in a host's own configuration, the one from which its system is built. Names
 * and paths get there as strings, never as Nix text.
 */
const EXPRESSION = `
{ file, flake, hostname, path }:
let
  names = builtins.fromJSON path;
  source = if flake != "" then (builtins.getFlake flake).nixosConfigurations else import (/. + file);
  root = if builtins.isFunction source then source { } else source;
  all = if root ? config && root ? options then { "" = root; } else root;
  chosen =
    if hostname == "" then all
    else if builtins.hasAttr hostname all then { \${hostname} = all.\${hostname}; }
    else null;

  isOption = value: builtins.isAttrs value && value._type or "" == "option";
  length = builtins.length;
  at = builtins.elemAt names;
  textOf = value:
    if builtins.isString value then value
    else if builtins.isAttrs value && builtins.isString (value.text or null) then value.text
    else null;
  optional = name: value: if value == null then { } else { \${name} = value; };
  discard = builtins.unsafeDiscardStringContext;

  # As JSON: a derivation becomes its store path, and what JSON cannot say becomes its kind.
  show = value:
    let
      tried = builtins.tryEval value;
      it = tried.value;
      type = builtins.typeOf it;
    in
    if !tried.success then "«error»"
    else if type == "lambda" then "«function»"
    else if type == "path" then toString it
    else if type == "string" then discard it
    else if type == "list" then map show it
    else if type != "set" then it
    else if it.type or "" == "derivation" then
      let path = builtins.tryEval it.outPath; in if path.success then discard path.value else "«derivation»"
    else if it._type or "" == "pkgs" then "«packages»"
    else if it ? __functor then "«function»"
    else if it ? __toString then discard (toString it)
    else builtins.mapAttrs (_: show) (builtins.removeAttrs it [ "_module" ]);

  # Goes on within the value of an option, if its type is a set of something.
  inside = depth: value:
    if depth == length names then { found = value; }
    else if builtins.isAttrs value && builtins.hasAttr (at depth) value then
      inside (depth + 1) value.\${at depth}
    else
      {
        unknown = {
          kind = "unknown";
          inherit depth;
          names = if builtins.isAttrs value then builtins.attrNames value else [ ];
        };
      };

  describe = option: config: depth:
    let
      value = if option ? value then option.value else config;
      defined = (option.isDefined or true) && (builtins.tryEval value).success;
      reached = inside depth value;
      whole = depth == length names;
      # Older versions of nixpkgs know only the files.
      definitions = map (
        definition:
        { file = toString definition.file; }
        // (if whole && definition ? value then { value = show definition.value; } else { })
      ) (option.definitionsWithLocations or (map (file: { inherit file; }) (option.files or [ ])));
      text = textOf (option.defaultText or null);
    in
    if !defined then { kind = "undefined"; } // optional "type" (option.type.description or null)
    else if reached ? unknown then reached.unknown
    else
      {
        kind = "option";
        value = show reached.found;
        inherit definitions;
        declarations = map toString (option.declarations or [ ]);
      }
      // (
        if !whole then { }
        else
          optional "type" (option.type.description or null)
          // optional "description" (textOf (option.description or null))
          // (
            if text != null then { defaultText = text; }
            else if option ? default then { default = show option.default; }
            else { }
          )
      );

  walk = options: config: depth:
    if isOption options then describe options config depth
    else if depth == length names then { kind = "set"; names = builtins.attrNames (builtins.removeAttrs options [ "_module" ]); }
    else if builtins.hasAttr (at depth) options then
      walk options.\${at depth} config.\${at depth} (depth + 1)
    else { kind = "unknown"; inherit depth; names = builtins.attrNames options; };
in
if chosen == null then { missing = hostname; known = builtins.attrNames all; }
else { hosts = builtins.mapAttrs (_: host: walk host.options host.config 0) chosen; }
`;

/** An option's value and origin on the hosts asked for, by hostname. */
export interface OptionQuery {
  readonly source: ConfigurationSource;
  readonly names: readonly string[];
  /** One host; all of them if absent. */
  readonly hostname?: string | undefined;
}

/**
 * Evaluates an option; gives its value by hostname. The hostname is "" if the configuration is
 * that of a single host. Throws OPTION_UNKNOWN with names that may be meant, OPTION_UNDEFINED,
 * USAGE, BUILD_FAILED.
 */
export async function evaluateOption(
  { source, names, hostname }: OptionQuery,
  context: BuildContext,
): Promise<Record<string, OptionOnHost>> {
  const strings = {
    file: source.kind === "file" ? resolve(source.file) : "",
    flake: source.kind === "flake" ? flakeReference(source.reference) : "",
    hostname: hostname ?? "",
    path: JSON.stringify(names),
  };
  const { stdout } = await nix(
    "nix-instantiate",
    [
      ...EXPERIMENTAL,
      ...["--eval", "--strict", "--json", "--expr", EXPRESSION],
      ...Object.entries(strings).flatMap(([name, value]) => ["--argstr", name, value]),
    ],
    context,
  );
  const parsed = answersSchema.safeParse(parseJson(stdout));
  if (!parsed.success) {
    throw new PullError(
      "BUILD_FAILED",
      `expected an option from Nix, found something else: ${describeIssues(parsed.error, {})}`,
    );
  }
  const answers = parsed.data;
  if ("missing" in answers) {
    throw new PullError(
      "USAGE",
      `--host: the configuration has no host ${answers.missing}; it has ${answers.known.join(", ") || "none"}`,
    );
  }
  const results: Record<string, OptionOnHost> = {};
  for (const [host, answer] of Object.entries(answers.hosts)) {
    if (answer.kind !== "option") throw refusalOf(answer, names, host);
    const { kind: _, ...option } = answer;
    results[host] = option;
  }
  return results;
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

function refusalOf(
  answer: Exclude<z.infer<typeof answerSchema>, { kind: "option" }>,
  names: readonly string[],
  hostname: string,
): PullError {
  const on = hostname === "" ? "" : ` on ${hostname}`;
  const pathOf = (parts: readonly string[]): string => parts.map(nixName).join(".");
  const path = pathOf(names);
  switch (answer.kind) {
    case "undefined":
      return new PullError(
        "OPTION_UNDEFINED",
        `${path} has no value${on}: nothing defines it, and it has no default`,
      );
    case "set":
      return new PullError(
        "OPTION_UNKNOWN",
        `${path} is no option but a set of: ${answer.names.join(", ")}`,
      );
    case "unknown": {
      const parents = names.slice(0, answer.depth);
      const suggested = suggestNames(names[answer.depth] ?? "", answer.names).map((name) =>
        pathOf([...parents, name, ...names.slice(answer.depth + 1)]),
      );
      const meant = suggested.length > 0 ? `; perhaps ${suggested.join(" or ")}` : "";
      return new PullError("OPTION_UNKNOWN", `there is no option ${path}${on}${meant}`);
    }
    default:
      return answer satisfies never;
  }
}

import * as z from "zod";
import { EXIT, PullError } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { nixLines, nixText, type Json } from "../core/publish/nix-text.ts";
import { parseOptionPath } from "../core/publish/option-path.ts";
import {
  evaluateOption,
  type ConfigurationSource,
  type OptionAnswers,
  type OptionOnHost,
} from "../operator/repository/nixos-option.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { printJson } from "./display/json.ts";
import { ProgressLine, printLine } from "./display/output.ts";
import { screenOf, show, styled, type Style } from "./display/screen.ts";
import { jsonOption } from "./options/json.ts";

const DEFAULT_FILE = "nixos.nix";

const hostnameOrNull = hostnameSchema.nullable().describe("null if the file is of one host alone");

/** What `option --json` prints. */
const optionSchema = z.strictObject({
  path: z.string(),
  hosts: z.array(
    z.union([
      z.strictObject({
        hostname: hostnameOrNull,
        value: z.unknown(),
        definitions: z
          .array(
            z.strictObject({
              file: z.string(),
              value: z.unknown().optional(),
              priority: z
                .int()
                .optional()
                .describe("as in nixpkgs: 50 for mkForce, 1000 for mkDefault"),
              overridden: z
                .literal(true)
                .optional()
                .describe("a definition with a stronger priority counts instead"),
            }),
          )
          .describe("those that are overridden come last"),
        type: z.string().optional(),
        default: z.unknown().optional(),
        defaultText: z.string().optional(),
        description: z.string().optional(),
        declarations: z.array(z.string()),
        failedParts: z
          .array(z.strictObject({ path: z.string(), message: z.string() }))
          .describe("parts of the value that cannot be evaluated, with Nix's own words"),
      }),
      z.strictObject({
        hostname: hostnameOrNull,
        error: z
          .strictObject({ code: z.string(), message: z.string() })
          .describe("why this host has no value to show"),
      }),
    ]),
  ),
});

function definition() {
  return operatorCommand(
    "option",
    "show an option's value in the hosts' configuration, and who sets it",
  )
    .argument("<path>", "such as networking.firewall.allowedTCPPorts")
    .option("--host <name>", "of this host only")
    .option("--file <file>", `Nix file with the hosts' configurations (default: ${DEFAULT_FILE})`)
    .option("--flake <reference>", "flake with nixosConfigurations instead")
    .addOption(jsonOption(optionSchema));
}

export const optionCommand: CommandMaker = ({ signal, finish }) =>
  definition().action((path, options) => {
    finish(option(path, options, signal));
  });

/** `nixos-pull option PATH`: an option's value in the configuration that is published. */
async function option(
  path: string,
  options: OptionsOf<typeof definition>,
  signal: AbortSignal,
): CommandResult {
  if (options.file !== undefined && options.flake !== undefined) {
    throw new PullError("USAGE", "expected --file FILE or --flake REFERENCE, not both");
  }
  const source: ConfigurationSource =
    options.flake === undefined
      ? { kind: "file", file: options.file ?? DEFAULT_FILE }
      : { kind: "flake", reference: options.flake };
  const names = parseOptionPath(path);
  const progress = new ProgressLine();
  const context = {
    signal,
    onLine: (line: string) => {
      progress.show(line);
    },
  };
  const answers = await evaluateOption({ source, names, hostname: options.host }, context);
  progress.clear();
  const errors = [...answers].flatMap(([hostname, answer]) =>
    answer instanceof PullError ? [{ hostname, error: answer }] : [],
  );
  // A host that lacks the option is an answer, if others have it; one that fails is none.
  const refusal = refusalOf(errors, answers.size);
  if (refusal && errors.length === answers.size) throw refusal;
  if (options.json) {
    printJson(optionSchema, { path, hosts: [...answers].map(hostForJson) });
    return refusal?.exitCode ?? EXIT.ok;
  }
  printAnswers(path, answers);
  if (refusal) throw refusal;
  return EXIT.ok;
}

/** What the command fails with: the hosts that fail, or if no host has the option, why. */
function refusalOf(
  errors: readonly { readonly hostname: string; readonly error: PullError }[],
  asked: number,
): PullError | null {
  const named = ({ hostname, error }: (typeof errors)[number]): string =>
    `${hostname === "" ? "" : `${hostname}: `}${error.message}`;
  const failed = errors.filter(({ error }) => error.code === "BUILD_FAILED");
  if (failed.length > 0) return new PullError("BUILD_FAILED", failed.map(named).join("\n"));
  const [first] = errors;
  if (!first || errors.length < asked) return null;
  const alike = errors.every(({ error }) => error.message === first.error.message);
  const messages = alike && asked > 1 ? first.error.message : errors.map(named).join("\n");
  return new PullError(first.error.code, messages);
}

function hostForJson([name, answer]: readonly [string, OptionOnHost | PullError]) {
  const hostname = name === "" ? null : name;
  if (!(answer instanceof PullError)) return { hostname, ...answer };
  return { hostname, error: { code: answer.code, message: answer.message } };
}

function printAnswers(path: string, answers: OptionAnswers): void {
  let about: OptionOnHost | undefined;
  for (const [hostname, answer] of answers) {
    const host = hostname === "" ? "" : `${hostname}: `;
    if (answer instanceof PullError) {
      if (answer.code !== "BUILD_FAILED") printLine(`${host}${answer.message}`);
      continue;
    }
    about ??= answer;
    if (path === "assertions") printAssertions(host, answer.value);
    else printOption(`${host}${path}`, answer);
  }
  if (about) printAbout(about);
}

function printOption(name: string, { value, definitions, failedParts }: OptionOnHost): void {
  const { columns } = screenOf(process.stdout);
  const shown = (lines: readonly string[], style?: Style): void => {
    show(lines.map((text) => ({ text, style })));
  };
  shown(nixLines(value, { columns, before: `${name} = ` }));
  for (const { path, message } of failedParts) shown([`  «error» of ${path}: ${message}`], "bad");
  for (const { file, value: defined, priority = DEFAULT_PRIORITY, overridden } of definitions) {
    const by = priorityName(priority);
    const marks = [by, overridden ? "overridden" : ""].filter((mark) => mark !== "").join(", ");
    const after = marks === "" ? "" : ` (${marks})`;
    const style = overridden ? "dim" : undefined;
    if (defined === undefined) shown([`  ${file}${after}`], style);
    else shown(nixLines(defined, { columns, before: `  ${file}: `, after }), style);
  }
}

const assertionSchema = z.object({ assertion: z.unknown(), message: z.string() });

/** Of the hundreds of assertions that a host has, those that fail are of interest. */
function printAssertions(host: string, value: Json): void {
  const all: readonly unknown[] = Array.isArray(value) ? value : [];
  const failed = all.flatMap((one) => {
    const parsed = assertionSchema.safeParse(one);
    return parsed.success && parsed.data.assertion !== true ? [parsed.data.message] : [];
  });
  const summary =
    failed.length === 0
      ? `all ${all.length} hold`
      : `${failed.length} of ${all.length} ${failed.length === 1 ? "fails" : "fail"}`;
  show([
    `${host}assertions: ${summary}`,
    ...failed.map((message) => styled("bad", `  fails: ${message.trim()}`)),
  ]);
}

const DEFAULT_PRIORITY = 100;

/** What nixpkgs calls a priority; "" for that of a plain definition. */
function priorityName(priority: number): string {
  const names: Readonly<Record<number, string>> = {
    10: "mkVMOverride",
    50: "mkForce",
    60: "mkImageMediaOverride",
    [DEFAULT_PRIORITY]: "",
    1000: "mkDefault",
    1500: "mkOptionDefault",
  };
  return names[priority] ?? `mkOverride ${priority}`;
}

function printAbout({
  type,
  default: value,
  defaultText,
  description,
  declarations,
}: OptionOnHost): void {
  const standard = defaultText ?? (value === undefined ? null : nixText(value));
  if (type !== undefined) printLine(`type: ${type}`);
  if (standard !== null) printLine(`default: ${standard}`);
  if (declarations.length > 0) printLine(`declared in: ${declarations.join(", ")}`);
  if (description !== undefined) printLine(`\n${description.trim()}`);
}

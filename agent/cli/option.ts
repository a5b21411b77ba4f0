import * as z from "zod";
import { EXIT, PullError } from "../core/errors.ts";
import { hostnameSchema } from "../core/formats/manifest.ts";
import { nixText } from "../core/publish/nix-text.ts";
import { parseOptionPath } from "../core/publish/option-path.ts";
import {
  evaluateOption,
  type ConfigurationSource,
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
import { jsonOption } from "./options/json.ts";

const DEFAULT_FILE = "nixos.nix";

/** What `option --json` prints. */
const optionSchema = z.strictObject({
  path: z.string(),
  hosts: z.array(
    z.strictObject({
      hostname: hostnameSchema.nullable().describe("null if the file is of one host alone"),
      value: z.unknown(),
      definitions: z.array(z.strictObject({ file: z.string(), value: z.unknown().optional() })),
      type: z.string().optional(),
      default: z.unknown().optional(),
      defaultText: z.string().optional(),
      description: z.string().optional(),
      declarations: z.array(z.string()),
    }),
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
  const hosts = await evaluateOption({ source, names, hostname: options.host }, context);
  progress.clear();
  if (options.json) {
    const shown = Object.entries(hosts).map(([hostname, facts]) => ({
      hostname: hostname === "" ? null : hostname,
      ...facts,
    }));
    printJson(optionSchema, { path, hosts: shown });
  } else printOption(path, hosts);
  return EXIT.ok;
}

function printOption(path: string, hosts: Readonly<Record<string, OptionOnHost>>): void {
  for (const [hostname, { value, definitions }] of Object.entries(hosts)) {
    printLine(`${hostname === "" ? "" : `${hostname}: `}${path} = ${nixText(value)}`);
    for (const { file, value: defined } of definitions) {
      printLine(`  ${file}${defined === undefined ? "" : `: ${nixText(defined)}`}`);
    }
  }
  const about = Object.values(hosts)[0];
  if (!about) return;
  const { type, defaultText, description, declarations } = about;
  const standard = defaultText ?? (about.default === undefined ? null : nixText(about.default));
  if (type !== undefined) printLine(`type: ${type}`);
  if (standard !== null) printLine(`default: ${standard}`);
  if (declarations.length > 0) printLine(`declared in: ${declarations.join(", ")}`);
  if (description !== undefined) printLine(`\n${description.trim()}`);
}

// Writes the parts of the documentation that the code decides: the JSON Schemas, and
// between markers the tables of settings, error codes and exit codes and the commands'
// help, the manual page, and the options of the NixOS module if Nix is installed.
// With --check it writes nothing and exits with 1 if a file differs.
//
//   node scripts/docs.mjs [--check] [DIRECTORY]     (default: this repository)
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import prettier from "prettier";
import { outputTables } from "./json-outputs.mjs";
import { manPages } from "./man-page.mjs";
import { MODULE_OPTIONS, moduleOptions } from "./module-options.mjs";

const repository = fileURLToPath(new URL("..", import.meta.url));

const SOURCES = `
export { createProgram } from "./agent/cli/program.ts";
export { CHECKS } from "./agent/core/doctor/result.ts";
export { errorDocumentSchema } from "./agent/cli/display/json.ts";
export { outputSchemaOf } from "./agent/cli/options/json.ts";
export { archiveIndexSchema } from "./agent/core/formats/archive-index.ts";
export { durationSchema } from "./agent/core/text/duration.ts";
export { envelopeSchema } from "./agent/core/formats/envelope.ts";
export { ERROR_KINDS, EXIT } from "./agent/core/errors.ts";
export { MAX_HOSTS, manifestSchema } from "./agent/core/formats/manifest.ts";
export { settingsSchema } from "./agent/core/settings.ts";
export { STORE_DIRECTORY, STORE_PATH_NAME, storePathSchema } from "./agent/core/formats/store-path.ts";
export * as z from "zod";
`;

/** Bundles what is needed of the agent, since Node 20 runs no TypeScript, and loads it. */
async function loadAgent() {
  const directory = await mkdtemp(join(tmpdir(), "nixos-pull-docs-"));
  try {
    const outfile = join(directory, "agent.cjs");
    await build({
      absWorkingDir: repository,
      stdin: { contents: SOURCES, resolveDir: repository, loader: "ts" },
      outfile,
      bundle: true,
      platform: "node",
      target: "node20",
      format: "cjs",
      define: { "import.meta.url": JSON.stringify(import.meta.url) },
      logLevel: "warning",
    });
    return createRequire(import.meta.url)(outfile);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const DURATION = "^([0-9]+[smhd])+$";
const MIRROR = "^(https?://[^/?#\\s][^?#\\s]*|file:///[^?#\\s]*)$";
const PUBLIC_KEY = "^[^\\s:]{1,200}:[A-Za-z0-9+/]{43}=$";

function storePathPattern({ STORE_DIRECTORY, STORE_PATH_NAME }) {
  return `^${STORE_DIRECTORY}/${STORE_PATH_NAME.source.slice(1)}`;
}

/** The JSON Schemas by file name, as objects. */
function jsonSchemas(agent) {
  const { z, durationSchema, storePathSchema } = agent;

  // What zod cannot say in JSON Schema by itself: transforms and refinements.
  const settings = {
    "properties/mirrors/items": { pattern: MIRROR },
    "properties/publicKeys/items": { pattern: PUBLIC_KEY },
    "properties/poll": {
      not: { required: ["interval", "cron"] },
      dependentRequired: { timezone: ["cron"] },
    },
  };
  const manifest = { "properties/hosts": { maxProperties: agent.MAX_HOSTS } };

  const documents = [
    ["settings", agent.settingsSchema, "nixos-pull: configuration file", settings],
    ["envelope", agent.envelopeSchema, "nixos-pull: channels/CHANNEL/manifest.json", {}],
    ["manifest", agent.manifestSchema, "nixos-pull: the envelope's payload", manifest],
    ["archive-index", agent.archiveIndexSchema, "nixos-pull: index.json.gz, decompressed", {}],
  ];
  return documents.map(([name, schema, title, additions]) => {
    const unused = new Set(Object.keys(additions));
    const { $schema, ...rest } = z.toJSONSchema(schema, {
      io: "input",
      override: ({ zodSchema, jsonSchema, path }) => {
        const { def } = zodSchema._zod;
        if (def.type === "pipe" && def.in === durationSchema.def.in) jsonSchema.pattern = DURATION;
        if (zodSchema === storePathSchema) jsonSchema.pattern = storePathPattern(agent);
        const where = path.join("/");
        Object.assign(jsonSchema, additions[where]);
        unused.delete(where);
      },
    });
    if (unused.size > 0) throw new Error(`${name}: nothing at ${[...unused].join(", ")}`);
    return [name, { $schema, title, ...rest }];
  });
}

/** A Markdown table; cells may hold anything on one line. */
function table(head, rows) {
  const line = (cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

const code = (value) => `\`${value}\``;

function settingsTable(schema) {
  const rows = [];
  const visit = (properties, required, prefix) => {
    for (const [name, property] of Object.entries(properties)) {
      const key = `${prefix}${name}`;
      const isSection = property.properties !== undefined;
      const given = required.includes(name)
        ? "required"
        : property.default === undefined || isSection || typeof property.default === "object"
          ? ""
          : code(property.default);
      rows.push([
        code(key),
        isSection ? "section" : typeName(property, key),
        given,
        property.description,
      ]);
      if (isSection) visit(property.properties, property.required ?? [], `${key}.`);
    }
  };
  visit(schema.properties, schema.required, "");
  const undescribed = rows.filter(([, , , description]) => !description);
  if (undescribed.length > 0) throw new Error(`no description: ${undescribed.join("; ")}`);
  return table(["key", "type", "default", "description"], rows);
}

function typeName(property, key) {
  if (property.additionalProperties?.properties) return "by address";
  if (property.enum) return property.enum.map(code).join(", ");
  if (property.type === "array") return `list of ${typeName(property.items, key)}`;
  if (property.type === "integer") return key.endsWith("Bytes") ? "bytes" : "integer";
  if (property.pattern === DURATION) return "duration";
  if (property.pattern === MIRROR) return "address";
  if (property.pattern === PUBLIC_KEY) return "public key";
  return "text";
}

/** What to look at, by the name of the exit code. */
const EXIT_MEANINGS = {
  ok: "done, or nothing to do",
  internal: "a defect in nixos-pull; please report it",
  usage: "the command line",
  configuration: "the configuration file or a key",
  trust: "the release: who signed it, when, for whom",
  mirror: "the mirror or the network",
  archive: "the closure archive, or its import into the store",
  host: "this host: disk, permissions, programs, state directory",
  activation: "the new system: it was refused, failed or was rolled back",
  busy: "another nixos-pull is at work",
  waiting: "nothing is wrong: the host waits, and the output says for what",
  publish: "the build or the mirror directory, on the operator's side",
  keptGoing: "`publish --keep-going` made the release, but some hosts failed to build",
  updateAvailable: "`check --exit-code` only: an update would be applied now",
  fleetTroubled: "`fleet --exit-code` only: a person should look at a host",
  unwell: "`doctor` only: a check failed, and the output says what to do",
  untried: "`doctor` only: no check failed, and some could not be tried: not as root, say",
  interrupted: "stopped by a signal",
};

/** Pairs of exit code and meaning. */
function exitMeanings({ EXIT }) {
  return Object.entries(EXIT).map(([name, exit]) => {
    if (!EXIT_MEANINGS[name]) throw new Error(`scripts/docs.mjs: no meaning for exit code ${name}`);
    return [String(exit), EXIT_MEANINGS[name]];
  });
}

/** Where the agent keeps what, for the manual page. */
const FILES = [
  ["/etc/nixos-pull/config.json", "the configuration; on NixOS the module writes it"],
  ["/var/lib/nixos-pull/", "state, accepted releases, history, locks"],
  ["/run/nixos-pull/", "a copy of the state, in case its directory is lost"],
  ["/nix/var/nix/gcroots/nixos-pull/", "garbage collector roots"],
  ["/nix/var/nix/profiles/system", "the system profile"],
];

function errorTable({ ERROR_KINDS }) {
  const rows = Object.entries(ERROR_KINDS).map(([name, { exit, transient, meaning }]) => [
    code(name),
    String(exit),
    transient ? "yes" : "no",
    meaning,
  ]);
  return table(["code", "exit code", "transient", "meaning"], rows);
}

/** All commands and their subcommands, each with its whole name. */
function allCommands(command, title = "nixos-pull") {
  const below = command.commands.flatMap((it) => allCommands(it, `${title} ${it.name()}`));
  return [{ command, title }, ...below];
}

/** The file that describes what a command prints for `--json`, below agent/docs. */
function outputFile(title) {
  return `schema/output/${title.replace("nixos-pull ", "").replaceAll(" ", "-")}.schema.json`;
}

/** What each command prints for `--json`: its own document, or that of an error. */
function outputSchemas({ z, outputSchemaOf, errorDocumentSchema, ...agent }, commands) {
  return commands.flatMap(({ command, title }) => {
    const schema = outputSchemaOf(command.options);
    if (schema === null) return [];
    const { $schema, ...rest } = z.toJSONSchema(z.union([schema, errorDocumentSchema]), {
      io: "output",
      reused: "ref",
      override: ({ zodSchema, jsonSchema }) => {
        if (zodSchema === agent.storePathSchema) jsonSchema.pattern = storePathPattern(agent);
      },
    });
    return [[outputFile(title), { $schema, title: `${title} --json`, ...rest }]];
  });
}

function commandHelp({ z, outputSchemaOf }, commands) {
  /** Which command first had a table. */
  const known = new Map();
  return commands
    .map(({ command, title }) => {
      command.configureOutput({ getOutHelpWidth: () => 80, getOutHasColors: () => false });
      const help = `## ${title}\n\n\`\`\`text\n${command.helpInformation().trimEnd()}\n\`\`\``;
      const schema = outputSchemaOf(command.options);
      if (schema === null) return help;
      const file = outputFile(title);
      const link = `[${file.replace("schema/", "")}](${file})`;
      const keys = outputTables(title, z.toJSONSchema(schema, { io: "output" }), table);
      const same = known.get(keys);
      if (same !== undefined) {
        return `${help}\n\n\`--json\` prints the same keys as \`${same}\`: ${link}.`;
      }
      known.set(keys, title);
      return `${help}\n\nWith \`--json\` it prints (all of it: ${link}):\n\n${keys}`;
    })
    .join("\n\n");
}

/** The text with everything between `<!-- generated: NAME -->` markers replaced. */
function fill(text, parts, file) {
  const MARKED = /(<!-- generated: ([a-z-]+) -->\n)[\s\S]*?(\n?<!-- end of generated -->)/g;
  let found = 0;
  const filled = text.replace(MARKED, (_, begin, name, end) => {
    if (parts[name] === undefined) throw new Error(`${file}: unknown part ${name}`);
    found += 1;
    return `${begin}\n${parts[name]}\n\n${end.trimStart()}`;
  });
  if (found === 0) throw new Error(`${file}: no markers`);
  return filled;
}

const DOCUMENTS = ["commands", "configuration", "doctor", "errors"].map(
  (name) => `agent/docs/${name}.md`,
);

/** Every file that is generated or holds generated parts, with its right contents. */
async function generate(directory) {
  const agent = await loadAgent();
  const options = (await prettier.resolveConfig(join(repository, "package.json"))) ?? {};
  const program = await agent.createProgram({ signal: null, finish: () => undefined });
  const commands = allCommands(program);
  const schemas = jsonSchemas(agent);
  const parts = {
    settings: settingsTable(Object.fromEntries(schemas).settings),
    "exit-codes": table(["exit code", "where to look"], exitMeanings(agent)),
    "error-codes": errorTable(agent),
    commands: commandHelp(agent, commands),
    checks: table(
      ["check", "what is expected"],
      Object.entries(agent.CHECKS).map(([id, expected]) => [code(id), expected]),
    ),
  };
  const pages = manPages(program, exitMeanings(agent), FILES);
  const files = new Map([...pages].map(([name, text]) => [`agent/docs/man/${name}`, text]));
  const optionsDocument = await moduleOptions();
  if (optionsDocument !== null) files.set(MODULE_OPTIONS, optionsDocument);
  const named = schemas.map(([name, schema]) => [`schema/${name}.schema.json`, schema]);
  for (const [file, schema] of [...named, ...outputSchemas(agent, commands)]) {
    const text = await prettier.format(JSON.stringify(schema, null, 2), {
      ...options,
      parser: "json",
    });
    files.set(`agent/docs/${file}`, text);
  }
  for (const file of DOCUMENTS) {
    const text = fill(await readFile(join(directory, file), "utf8"), parts, file);
    files.set(file, await prettier.format(text, { ...options, parser: "markdown" }));
  }
  return files;
}

async function main(args) {
  const check = args.includes("--check");
  const directory = args.find((argument) => !argument.startsWith("--")) ?? repository;
  const stale = [];
  for (const [file, right] of await generate(directory)) {
    const path = join(directory, file);
    if ((await readFile(path, "utf8").catch(() => null)) === right) continue;
    stale.push(file);
    if (check) continue;
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, right);
  }
  if (stale.length === 0) return 0;
  console.log(`${check ? "Out of date; run `npm run docs`" : "Written"}: ${stale.join(", ")}`);
  return check ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));

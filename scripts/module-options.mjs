// nixos-module/options.md: every option of the NixOS module, from the evaluated module.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import prettier from "prettier";

/** Where the document lies, from the repository's root. */
export const MODULE_OPTIONS = "nixos-module/options.md";

const EVALUATE = fileURLToPath(new URL("../test/nixos-module/evaluate.nix", import.meta.url));

const INTRODUCTION = `# Options of the NixOS module

<!-- Written by \`npm run docs\` from options.nix; do not edit. -->

How to use them: [README.md](README.md). Below \`settings\`, an option's path is the key's path in the agent's
[configuration file](../agent/docs/configuration.md), which also has the keys without an option of their own.`;

/** JSON as Nix. */
function nixText(value) {
  if (typeof value === "string") return JSON.stringify(value).replaceAll("${", "\\${");
  if (Array.isArray(value)) return ["[", ...value.map(nixText), "]"].join(" ");
  if (value === null || typeof value !== "object") return String(value);
  if (value._type === "literalExpression") return value.text.trim();
  const attributes = Object.entries(value).map(([name, one]) => {
    const key = /^[a-zA-Z_][a-zA-Z0-9_'-]*$/.test(name) ? name : nixText(name);
    return `${key} = ${nixText(one)};`;
  });
  return ["{", ...attributes, "}"].join(" ");
}

/** Markdown of Nix: on the line of its label, or as a block below it. */
function labelled(label, nix) {
  return nix.includes("\n") ? `${label}:\n\n\`\`\`nix\n${nix}\n\`\`\`` : `${label}: \`${nix}\``;
}

function section(option) {
  const { name, type, required, description } = option;
  // NixOS marks what a piece of code is ({file}, {command}), which Markdown has no use for.
  const text = description.replaceAll(/\{[a-z]+\}`/g, "`").trim();
  const given = "value" in option.default ? option.default.value : option.default;
  const lines = [
    `Type: ${type}`,
    required ? "No default" : labelled("Default", nixText(given)),
    labelled("Example", nixText(option.example.value)),
  ];
  const block = lines.some((line) => line.includes("\n"));
  return `## \`${name}\`\n\n${text}\n\n${lines.join(block ? "\n\n" : "  \n")}`;
}

/**
 * The document, with the `lib` of a nixpkgs tree or, where none is named, the tests' stand-in
 * for it; null where there is no Nix.
 */
export async function moduleOptions(nixpkgs = "") {
  const args = ["--eval", "--strict", "--json", "--readonly-mode", "--store", "dummy://"];
  const { error, status, stdout, stderr } = spawnSync(
    "nix-instantiate",
    [...args, EVALUATE, "--attr", "documented", "--argstr", "nixpkgs", nixpkgs],
    { encoding: "utf8", maxBuffer: 16 * 1024 * 1024, timeout: 60_000 },
  );
  if (error?.code === "ENOENT") return null;
  if (error || status !== 0) throw error ?? new Error(`nix-instantiate: ${stderr}`);
  const text = [INTRODUCTION, ...JSON.parse(stdout).map(section)].join("\n\n");
  return await prettier.format(text, { parser: "markdown", printWidth: 100 });
}

import { readFile, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import * as z from "zod";
import { PullError } from "../../core/errors.ts";
import { nixText } from "../../core/publish/nix-text.ts";
import { ifMissing, isNotFound } from "../../effects/files/missing-file.ts";
import { parseHostsFile, type HostSpec } from "./host-spec.ts";
import { heapIn, TO_SPECS, withStatistics, type HostSet } from "./host-set.ts";
import { EXPERIMENTAL, nix, type BuildContext } from "./nix-builder.ts";

/** Throws CONFIG_NOT_FOUND if there is no hosts file, CONFIG_INVALID if a JSON one is wrong. */
export async function expectHostsFile(file: string): Promise<void> {
  if (!file.endsWith(".nix")) await readJsonHosts(file);
  else if (!(await ifMissing(stat(file), null))) throw notFound(file);
}

function notFound(file: string, cause?: unknown): PullError {
  const message = `--hosts: expected a hosts file at ${file}, found none`;
  return new PullError("CONFIG_NOT_FOUND", message, { cause });
}

/** The hosts of a JSON file. Throws CONFIG_NOT_FOUND, CONFIG_INVALID, USAGE. */
export async function readJsonHosts(file: string): Promise<HostSpec[]> {
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    if (!isNotFound(cause)) throw cause;
    throw notFound(file, cause);
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

/**
 * The hosts of a Nix file: an attribute set, or a function of `{}` to one, of hostnames to systems,
 * to NixOS configurations, or to `{ system, activation, … }`.
 */
export function fileHosts(file: string): HostSet {
  const evaluate = (
    body: string,
    names: readonly string[],
    context: BuildContext,
  ): ReturnType<typeof nix> =>
    nix(
      "nix-instantiate",
      [
        // For files that look into a flake by builtins.getFlake.
        ...[...EXPERIMENTAL, "--eval", "--strict", "--json"],
        // Writes the derivations, so that they can be realised afterwards.
        "--read-write-mode",
        ...["--argstr", "file", resolve(file), "--argstr", "names", JSON.stringify(names)],
        ...["--expr", `${HOSTS_OF_FILE}${body}`],
      ],
      context,
    );
  return {
    label: file,
    async names(context) {
      const { stdout } = await evaluate("builtins.attrNames hosts", [], context);
      return namesSchema.parse(JSON.parse(stdout));
    },
    async evaluate(names, context) {
      const body = `(${TO_SPECS}) hosts (builtins.fromJSON names)`;
      const { stdout, stderr } = await evaluate(body, names, withStatistics(context));
      return { hosts: hostsSchema.parse(JSON.parse(stdout)), heap: heapIn(stderr) };
    },
    expression: () =>
      Promise.resolve({
        text: `(${HOSTS_OF_FILE} hosts) { file = ${nixText(resolve(file))}; }`,
        pure: false,
      }),
  };
}

import { execFile, spawnSync } from "node:child_process";
import { promisify } from "node:util";

/**
 * Nix, as the tests of the module use it. Nothing is built and nothing is written to the
 * machine's store. With NIXOS_PULL_NIXPKGS naming a nixpkgs tree, the module is evaluated
 * with that tree's `lib`, otherwise with `stand-in-lib.nix`.
 */
const run = promisify(execFile);

const EVALUATE = new URL("evaluate.nix", import.meta.url).pathname;
const NIXPKGS = process.env["NIXOS_PULL_NIXPKGS"] ?? "";
const TIMEOUT_MS = 240_000;

/** Whether the tests have to do without Nix. */
export const noNix = spawnSync("nix-instantiate", ["--version"]).error !== undefined;
export const usesNixpkgs = NIXPKGS !== "";

/** A configuration that is complete, with further Nix text inside `settings`. */
export function configured(settings = ""): string {
  return `{ services.nixos-pull = { enable = true; settings = ${minimal} // { ${settings} }; }; }`;
}

export const PUBLIC_KEY = "releases-1:RbfLIBXdq0ZBWH4jmZCGEqZ5I3qFZe9UUxPFyqtZLgM=";

const minimal = `{ mirrors = [ "https://releases.example.org" ]; publicKeys = [ "${PUBLIC_KEY}" ]; }`;

/** An attribute of `evaluate.nix`, for a NixOS module given as Nix text. */
export async function evaluate(attribute: string, configuration = "{ }"): Promise<unknown> {
  return (await evaluated(attribute, configuration)).value;
}

/** The same, with the warnings of the evaluation, and for a build system. */
export async function evaluated(
  attribute: string,
  configuration = "{ }",
  system = "x86_64-linux",
): Promise<{ value: unknown; stderr: string }> {
  const { stdout, stderr } = await run(
    "nix-instantiate",
    [
      ["--eval", "--strict", "--json", "--readonly-mode", "--store", "dummy://"],
      [EVALUATE, "--attr", attribute],
      ["--arg", "configuration", configuration, "--argstr", "nixpkgs", NIXPKGS],
      ["--argstr", "system", system],
    ].flat(),
    { timeout: TIMEOUT_MS },
  );
  return { value: JSON.parse(stdout) as unknown, stderr };
}

/** The configuration file that a NixOS module gives, as JSON; undefined where it gives none. */
export async function configFile(configuration: string): Promise<unknown> {
  const etc = (await evaluate("etc", configuration)) as Record<string, unknown>;
  return etc["nixos-pull/config.json"];
}

/** Runs `nix` with a store and a home of its own below `directory`. */
export async function nix(directory: string, ...args: string[]): Promise<string> {
  const { stdout } = await run(
    "nix",
    [
      ["--extra-experimental-features", "nix-command flakes"],
      ["--option", "substitute", "false", "--store", `${directory}/store`],
      args,
    ].flat(),
    { env: { ...process.env, HOME: directory, XDG_CACHE_HOME: directory }, timeout: TIMEOUT_MS },
  );
  return stdout;
}

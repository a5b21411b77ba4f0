import { execFile } from "node:child_process";
import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { testEnvironment } from "./nixos-pull.ts";

const run = promisify(execFile);
const BUNDLE = fileURLToPath(new URL("../../dist/nixos-pull.cjs", import.meta.url));

/** A machine on which nothing is set up: a home without settings, and a Git that knows nobody. */
export interface NewMachine {
  readonly directory: string;
  readonly home: string;
  /** A directory at the beginning of PATH. */
  readonly bin: string;
  readonly env: Record<string, string>;
}

/** Makes a new machine below `parent`; programs are scripts of /bin/sh by name. */
export async function newMachine(
  parent: string,
  programs: Readonly<Record<string, string>> = {},
): Promise<NewMachine> {
  const directory = await mkdtemp(join(parent, "machine-"));
  const home = join(directory, "home");
  const bin = join(directory, "bin");
  await mkdir(home);
  await mkdir(bin);
  for (const [name, text] of Object.entries(programs)) {
    await writeFile(join(bin, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  }
  const { PATH = "", NIX_USER_CONF_FILES = "" } = testEnvironment();
  const env = {
    ...{ HOME: home, PATH: `${bin}:${PATH}`, NIX_USER_CONF_FILES },
    ...{ GIT_CONFIG_NOSYSTEM: "1", GIT_CONFIG_COUNT: "1" },
    // Never a name made out of the machine's own.
    ...{ GIT_CONFIG_KEY_0: "user.useConfigOnly", GIT_CONFIG_VALUE_0: "true" },
  };
  return { directory, home, bin, env };
}

/** What runs the bundle, in shell. */
export const RUN_BUNDLE = `exec '${process.execPath}' '${BUNDLE}' "$@"`;

/** Runs a text in one shell, as if it were pasted there; gives what was printed. */
export async function paste(
  { directory, env }: NewMachine,
  where: string,
  text: string,
): Promise<string> {
  const file = join(directory, "pasted");
  await writeFile(file, text);
  const { stdout, stderr } = await run("bash", ["-euo", "pipefail", file], { cwd: where, env });
  return stdout + stderr;
}

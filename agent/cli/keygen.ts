import { chmod, open, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { EXIT, PullError } from "../core/errors.ts";
import { generateKey } from "../core/formats/signing-key.ts";
import {
  operatorCommand,
  type CommandMaker,
  type CommandResult,
  type OptionsOf,
} from "./command.ts";
import { note, printLine } from "./display/output.ts";

function definition() {
  return operatorCommand("keygen", "make a key pair for releases and store paths")
    .argument("<name>", "name of the key, such as fleet-1")
    .option("-o, --out <path>", "write PATH.secret and PATH.public (default: NAME)");
}

export const keygenCommand: CommandMaker = ({ finish }) =>
  definition().action((name, options) => {
    finish(keygen(name, options));
  });

/**
 * `nixos-pull keygen NAME`: writes NAME.secret and NAME.public and prints the public
 * key. Never overwrites a key.
 */
async function keygen(name: string, options: OptionsOf<typeof definition>): CommandResult {
  const pair = generateKey(name);
  const base = options.out ?? name;
  await writeNew(`${base}.secret`, pair.secret, 0o600);
  try {
    await writeNew(`${base}.public`, pair.public, 0o644);
  } catch (error) {
    // Half a pair would only stand in the way of the next attempt.
    await rm(`${base}.secret`);
    throw error;
  }
  note(`Wrote ${base}.secret (keep it) and ${base}.public (for hosts: publicKeys).`);
  printLine(pair.public);
  return EXIT.ok;
}

async function writeNew(path: string, text: string, mode: number): Promise<void> {
  try {
    const file = await open(path, "wx", mode);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await chmod(path, mode);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") {
      const message = `${path}: expected a directory that exists, found no ${dirname(path)}`;
      throw new PullError("USAGE", message, { cause });
    }
    if (code !== "EEXIST") throw cause;
    throw new PullError("USAGE", `${path} exists already and is not overwritten`, { cause });
  }
}

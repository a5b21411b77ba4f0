import { accessSync, constants } from "node:fs";
import { chmod, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { temporaryDirectory } from "./temporary.ts";

/** Where a program lies on this machine. */
function find(program: string): string {
  for (const directory of (process.env["PATH"] ?? "").split(":")) {
    const path = join(directory, program);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this directory.
    }
  }
  throw new Error(`no ${program} on PATH`);
}

/** A PATH with these programs alone, and with scripts (`{ nix: "sleep 100" }`) in place of others. */
export async function pathWith(
  programs: readonly string[],
  scripts: Readonly<Record<string, string>> = {},
): Promise<string> {
  const directory = await temporaryDirectory();
  for (const program of programs) await symlink(find(program), join(directory, program));
  for (const [name, script] of Object.entries(scripts)) {
    await writeFile(join(directory, name), `#!/bin/sh\nPATH=${process.env["PATH"]}\n${script}\n`);
    await chmod(join(directory, name), 0o755);
  }
  return directory;
}

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Makes a script, whose imports are relative to the repository, into one file that a
 * child process runs with plain Node: `node FILE`. Gives the file's path.
 */
export async function bundleScript(directory: string, source: string): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents: source, loader: "ts", resolveDir: ROOT },
    bundle: true,
    platform: "node",
    format: "cjs",
    write: false,
  });
  const path = join(directory, "script.cjs");
  await writeFile(path, outputFiles[0]?.contents ?? "");
  return path;
}

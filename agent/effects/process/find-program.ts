import { access, constants, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { PullError } from "../../core/errors.ts";

/**
 * Throws TOOL_MISSING if no program can be started by this name: a path, or a name on PATH. For
 * programs that are needed late in a long command.
 */
export async function expectProgram(
  command: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<void> {
  const path = env["PATH"] ?? "";
  const places = command.includes("/")
    ? [command]
    : path.split(delimiter).map((directory) => join(directory || ".", command));
  for (const place of places) if (await isProgram(place)) return;
  throw new PullError(
    "TOOL_MISSING",
    command.includes("/")
      ? `expected a program at ${command}, found none that can be started`
      : `expected the program ${command} on PATH, found none in ${path || "(no PATH)"}`,
  );
}

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

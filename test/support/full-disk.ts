import { spawnSync } from "node:child_process";
import { bundleScript } from "./bundled-script.ts";

/**
 * Makes a script, as `bundleScript` takes it, that runs where no file can grow beyond so
 * many kibibytes: as on a full disk, a write that goes over it is cut short, and the next
 * one fails. The script's argument is the directory to write to; what it printed is given.
 */
export async function scriptOnFullDisk(
  directory: string,
  source: string,
): Promise<(kibibytes: number, workDirectory: string) => string> {
  const script = await bundleScript(directory, source);
  return (kibibytes, workDirectory) => {
    const { stdout, stderr, status } = spawnSync(
      "bash",
      [
        ...["-c", `trap '' XFSZ; ulimit -f ${kibibytes}; exec "$0" "$@"`],
        ...[process.execPath, script, workDirectory],
      ],
      { encoding: "utf8" },
    );
    if (status !== 0) throw new Error(stderr);
    return stdout.trim();
  };
}

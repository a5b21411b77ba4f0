// Systems built by ../debian-closure: real closures of real Debian packages.
import { fileURLToPath } from "node:url";
import { runChecked } from "./process-usage.mjs";

const SCRIPT = fileURLToPath(new URL("../debian-closure", import.meta.url));

/** What the whole closure is called in tables. */
export const WHOLE = "1.7 GB";

/**
 * Builds one system for each host, with what earlier runs left in the store. Gives
 * store paths by hostname. `maxBytes` makes the closures smaller.
 */
export async function buildDebianSystems({
  hosts = ["web1"],
  generation = 1,
  maxBytes,
  salt,
  suite,
} = {}) {
  const { stdout } = await runChecked(SCRIPT, [
    ...hosts.flatMap((host) => ["--host", host]),
    ...["--generation", String(generation)],
    ...(maxBytes === undefined ? [] : ["--max-bytes", String(maxBytes)]),
    ...(salt === undefined ? [] : ["--salt", salt]),
    ...(suite === undefined ? [] : ["--suite", suite]),
  ]);
  const lines = stdout.trim().split("\n");
  return Object.fromEntries(lines.map((line) => line.split(" ")));
}

/** Builds one host's system; gives its store path. */
export async function buildDebianSystem(options = {}) {
  const [path] = Object.values(await buildDebianSystems(options));
  return path;
}

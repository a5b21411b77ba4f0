// What nixos-pull replaces: the same pull, typed by hand.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { runChecked } from "./process-usage.mjs";
import { environment } from "./sandbox.mjs";

/** `curl ARCHIVE | tar -x` into `root`/unpacked; gives that directory and what it took. */
export async function unpackByHand(root, url) {
  const directory = join(root, "unpacked");
  mkdirSync(directory, { recursive: true });
  const script = 'set -o pipefail; curl -sSf "$1" | tar -x -C "$2"';
  const run = await runChecked("bash", ["-c", script, "bash", url, directory], {
    env: environment(root),
  });
  return { ...run, directory };
}

/**
 * `nix copy --from CACHE TOPLEVEL` into the store below `root`. Only paths signed by
 * `publicKey` are taken, as the agent has it.
 */
export function importByHand(root, cache, toplevel, publicKey) {
  mkdirSync(join(root, "nix"), { recursive: true });
  const options = [
    ["--extra-experimental-features", "nix-command"],
    ["--option", "substitute", "false"],
    ["--option", "trusted-public-keys", publicKey],
    ["--option", "require-sigs", "true"],
  ];
  return runChecked(
    "nix",
    ["copy", "--from", cache, toplevel, "--store", `local?root=${root}`, ...options.flat()],
    { env: environment(root) },
  );
}

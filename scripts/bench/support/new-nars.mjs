// The floor of every update: what no cache can spare.
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { runChecked } from "./process-usage.mjs";
import { environment } from "./sandbox.mjs";

/**
 * Compressed sizes of the NARs that one closure has and another has not, by the narinfos
 * of a binary cache in `cache`; of all of them where `before` is null.
 */
export async function newNars(cache, before, after) {
  const closure = async (toplevel) => {
    const { stdout } = await runChecked("nix-store", ["--query", "--requisites", toplevel], {
      env: environment(cache),
    });
    return stdout.trim().split("\n");
  };
  const held = new Set(before === null ? [] : await closure(before));
  return (await closure(after))
    .filter((path) => !held.has(path))
    .map((path) => {
      const narInfo = readFileSync(join(cache, `${basename(path).slice(0, 32)}.narinfo`), "utf8");
      return Number(/^FileSize: (\d+)$/m.exec(narInfo)[1]);
    });
}

import { execFileSync } from "node:child_process";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { SYSTEM_FILE } from "./closure.ts";
import { runNix } from "./real-nix.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** A tree that is nixpkgs as far as a starting repository uses it; its systems can be built. */
export async function standInNixpkgs(directory: string): Promise<string> {
  const tree = join(directory, "nixpkgs");
  await mkdir(join(tree, "nixos/lib"), { recursive: true });
  await mkdir(join(tree, "lib"));
  const standIns: Record<string, string> = {
    "test/nixos-module/stand-in-lib.nix": "lib/default.nix",
    "test/nixos-module/stand-in-pkgs.nix": "pkgs.nix",
    "test/nixos-module/stand-in-nixos.nix": "nixos/stand-in-nixos.nix",
    "test/support/stand-in-nixpkgs/eval-config.nix": "nixos/lib/eval-config.nix",
  };
  for (const [from, to] of Object.entries(standIns)) await cp(join(ROOT, from), join(tree, to));
  // Flakes are evaluated purely, where Nix does not say what machine this is.
  const machine = runNix("nix-instantiate", ["--eval", "-E", "builtins.currentSystem"]).trim();
  const system = (await readFile(SYSTEM_FILE, "utf8")).replace("builtins.currentSystem", machine);
  await writeFile(join(tree, "nixos/lib/system.nix"), system);
  await writeFile(
    join(tree, "flake.nix"),
    `{
      outputs = { self }: {
        lib.nixosSystem = arguments: import ./nixos/lib/eval-config.nix ({ system = null; } // arguments);
      };
    }`,
  );
  return tree;
}

/** The parts of nixos-pull that hosts' configurations import. */
export async function nixosPullSources(directory: string): Promise<string> {
  const tree = join(directory, "nixos-pull");
  for (const part of ["flake.nix", "nixos-module", "package.json", "package-lock.json"]) {
    await cp(join(ROOT, part), join(tree, part), { recursive: true });
  }
  return tree;
}

/** Packs a tree as code hosts do: a tar with one directory. Gives its address. */
export function tarballOf(tree: string): string {
  const file = `${tree}.tar.gz`;
  execFileSync("tar", [
    "-czf",
    file,
    "-C",
    join(tree, ".."),
    tree.slice(tree.lastIndexOf("/") + 1),
  ]);
  return `file://${file}`;
}

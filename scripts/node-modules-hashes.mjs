// Writes nixos-module/node-modules-hashes.json: the hash of what the package's dependencies
// are once they are installed, for each build system, and of the lockfile that they belong
// to. To be run after every change of package-lock.json; needs npm's registry and Nix.
//
//   node scripts/node-modules-hashes.mjs
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import prettier from "prettier";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
const TIMEOUT_MS = 10 * 60_000;

/** Where the hashes are; package.nix reads it. */
export const HASHES_FILE = join(root, "nixos-module/node-modules-hashes.json");

/** npm's names for the build systems whose hashes are known. */
const SYSTEMS = {
  "x86_64-linux": { npm_config_cpu: "x64", npm_config_os: "linux", npm_config_libc: "glibc" },
  "aarch64-linux": { npm_config_cpu: "arm64", npm_config_os: "linux", npm_config_libc: "glibc" },
};

/** SHA-256 of package-lock.json, in hexadecimal. */
export async function lockfileHash() {
  return createHash("sha256")
    .update(await readFile(join(root, "package-lock.json")))
    .digest("hex");
}

/** Installs the dependencies for one build system as package.nix does; gives their hash. */
export async function nodeModulesHash(system) {
  const directory = await mkdtemp(join(tmpdir(), "nixos-pull-node-modules-"));
  try {
    const home = join(directory, "home");
    const sources = join(directory, "sources");
    await mkdir(home);
    await mkdir(sources);
    for (const file of ["package.json", "package-lock.json"]) {
      await cp(join(root, file), join(sources, file));
    }
    // What npm was told by whoever runs this (`npm run` tells much) is not told on.
    const inherited = Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name));
    await run("bash", [join(root, "nixos-module/node-modules.sh")], {
      cwd: sources,
      env: { ...Object.fromEntries(inherited), ...SYSTEMS[system], TMPDIR: home },
      timeout: TIMEOUT_MS,
    });
    const { stdout } = await run("nix", [
      ...["--extra-experimental-features", "nix-command"],
      ...["hash", "path", join(sources, "node_modules")],
    ]);
    return stdout.trim();
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function main() {
  const hashes = {};
  for (const system of Object.keys(SYSTEMS)) hashes[system] = await nodeModulesHash(system);
  const text = JSON.stringify({ lockfile: await lockfileHash(), hashes });
  await writeFile(HASHES_FILE, await prettier.format(text, { parser: "json", printWidth: 100 }));
  console.log(await readFile(HASHES_FILE, "utf8"));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();

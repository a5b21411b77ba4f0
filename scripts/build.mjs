// Bundles the agent into dist/nixos-pull.cjs: one file, no node_modules on hosts.
import { chmod, readFile, rename } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Builds the bundle; gives its path. */
export async function buildAgent(outfile = `${root}dist/nixos-pull.cjs`) {
  const { version } = JSON.parse(await readFile(`${root}package.json`, "utf8"));
  // In place by rename: a command that starts at this moment reads one or the other.
  const temporary = `${outfile}.${process.pid}.tmp`;
  await build({
    absWorkingDir: root,
    entryPoints: ["agent/main.ts"],
    outfile: temporary,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    // node-cron asks for its own address, which CommonJS says otherwise.
    banner: {
      js: '#!/usr/bin/env node\nconst bundleUrl = require("node:url").pathToFileURL(__filename).href;',
    },
    define: { NIXOS_PULL_VERSION: JSON.stringify(version), "import.meta.url": "bundleUrl" },
    legalComments: "none",
    logLevel: "warning",
  });
  await chmod(temporary, 0o755);
  await rename(temporary, outfile);
  return outfile;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(await buildAgent());

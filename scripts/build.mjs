// Bundles the agent into dist/nixos-pull.cjs: one file, no node_modules on hosts.
import { execFileSync } from "node:child_process";
import { chmod, readFile, readdir, rename } from "node:fs/promises";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));

/**
 * When the sources were made, ISO 8601: SOURCE_DATE_EPOCH, or the commit's time; empty
 * where neither is known or SOURCE_DATE_EPOCH is empty. Never "now", so that the same
 * sources give the same bundle.
 */
export function sourceTime() {
  let seconds = process.env.SOURCE_DATE_EPOCH;
  if (seconds === "") return "";
  try {
    seconds ??= execFileSync("git", ["log", "-1", "--format=%ct"], {
      cwd: root,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
  } catch {
    return "";
  }
  return new Date(Number(seconds) * 1000).toISOString();
}

/** The files that `nixos-pull init` writes, by their path in the folder of templates. */
async function templates() {
  const folder = join(root, "agent/operator/repository/template");
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  const texts = await Promise.all(files.map((file) => readFile(file, "utf8")));
  return Object.fromEntries(files.map((file, at) => [relative(folder, file), texts[at]]));
}

/**
 * Leaves out what undici's index loads and the agent never uses: fetch, WebSocket, mocks, caches.
 * They would take 6 MB of memory for as long as the program runs.
 */
const partsOfUndici = {
  name: "parts-of-undici",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^\.\/lib\/(web|mock|cache|interceptor)\// }, ({ path, importer }) =>
      importer.endsWith("/node_modules/undici/index.js")
        ? { path, namespace: "unused", sideEffects: false }
        : undefined,
    );
    onLoad({ filter: /.*/, namespace: "unused" }, () => ({
      contents: "module.exports = new Proxy({}, { get: () => class Unused {} });",
    }));
  },
};

/** Builds the bundle; gives its path. Tests build other versions of it, with esbuild's plugins. */
export async function buildAgent(
  outfile = `${root}dist/nixos-pull.cjs`,
  { version = null, plugins = [] } = {},
) {
  const ours = JSON.parse(await readFile(`${root}package.json`, "utf8")).version;
  // In place by rename: a command that starts at this moment reads one or the other.
  const temporary = `${outfile}.${process.pid}.tmp`;
  await build({
    absWorkingDir: root,
    entryPoints: ["agent/main.ts"],
    plugins: [partsOfUndici, ...plugins],
    outfile: temporary,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    // node-cron asks for its own address, which CommonJS says otherwise.
    banner: {
      js: '#!/usr/bin/env node\nconst bundleUrl = require("node:url").pathToFileURL(__filename).href;',
    },
    define: {
      NIXOS_PULL_VERSION: JSON.stringify(version ?? ours),
      NIXOS_PULL_BUILD_TIME: JSON.stringify(sourceTime()),
      NIXOS_PULL_TEMPLATES: JSON.stringify(await templates()),
      "import.meta.url": "bundleUrl",
    },
    legalComments: "none",
    logLevel: "warning",
  });
  await chmod(temporary, 0o755);
  await rename(temporary, outfile);
  return outfile;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(await buildAgent());

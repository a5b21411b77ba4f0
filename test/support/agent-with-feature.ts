import { readFile } from "node:fs/promises";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { buildAgent } from "../../scripts/build.mjs";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { testEnvironment, type CommandOutput } from "./nixos-pull.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** The feature that the later agent has: groups of hosts, as if 0.1.0 did not know them. */
export const FEATURE = "host-groups";

/** By file: what stands there, and what a version with the feature has in its place. */
const CHANGES: Readonly<Record<string, readonly [string, string]>> = {
  "agent/core/formats/compatibility.ts": [
    "export const FEATURES = [] as const",
    `export const FEATURES = ["${FEATURE}"] as const`,
  ],
  "agent/core/formats/requirements.ts": ['  groups: "base",\n', `  groups: "${FEATURE}",\n`],
};

/** Builds an agent of a later version, which has one feature more; gives its path. */
export async function buildAgentWithFeature(outfile: string): Promise<string> {
  return buildAgent(outfile, {
    version: "0.2.0",
    plugins: [
      {
        name: "feature",
        setup(build) {
          build.onLoad({ filter: /\/agent\/core\/formats\/.*\.ts$/ }, async ({ path }) => {
            const change = CHANGES[relative(ROOT, path)];
            if (!change) return undefined;
            const text = await readFile(path, "utf8");
            if (!text.includes(change[0])) throw new Error(`${path}: expected ${change[0]}`);
            return { contents: text.replace(...change), loader: "ts" };
          });
        },
      },
    ],
  });
}

/** Runs a bundle to its end. */
export async function runBundle(bundle: string, args: readonly string[]): Promise<CommandOutput> {
  return runProcess(process.execPath, [bundle, ...args], {
    env: testEnvironment(),
    timeoutMs: 120_000,
  });
}

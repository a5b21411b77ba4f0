// Mutation tests: changes the agent's code in small ways, one at a time, and runs the unit tests
// of that code. A mutant survives if no test fails; it shows what no test asserts.
//
//   npm run test:mutation                           core and host
//   npm run test:mutation -- agent/core/formats     one folder, or one file
//   npm run test:mutation -- --concurrency 1 …      with one process instead of two
//
// Prints every survivor, and a table of scores. Exits with 1 if core or host is below its goal.
import { existsSync, statSync } from "node:fs";
import { relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Stryker } from "@stryker-mutator/core";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** The least score in percent of each folder that is measured. */
const GOALS = { "agent/core": 85, "agent/host": 75 };

/** What counts as detected, and as missed; a mutant of another status does not count. */
const DETECTED = ["Killed", "Timeout"];
const MISSED = ["Survived", "NoCoverage"];

process.chdir(ROOT);
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { concurrency: { type: "string", default: "2" } },
});
const targets = (positionals.length > 0 ? positionals : Object.keys(GOALS)).map((path) =>
  relative(ROOT, resolve(path)),
);
for (const target of targets) {
  if (!existsSync(target) || !goalOf(target)) {
    console.error(`${target}: expected a folder or a file in ${Object.keys(GOALS).join(" or ")}`);
    process.exit(2);
  }
}

process.env.MUTATION_TESTS = [...new Set(targets.flatMap(testsOf))].join(",");
const results = await new Stryker({
  mutate: targets.map((path) => (statSync(path).isDirectory() ? `${path}/**/*.ts` : path)),
  testRunner: "vitest",
  vitest: { configFile: "test/mutation/vitest.config.ts" },
  plugins: ["@stryker-mutator/vitest-runner"],
  coverageAnalysis: "perTest",
  concurrency: Number(values.concurrency),
  // A mutant counts as detected when its tests take too long. On a busy machine they must not.
  timeoutMS: 30_000,
  timeoutFactor: 4,
  dryRunTimeoutMinutes: 20,
  // The copy that is changed and the report stay out of the sources.
  tempDirName: "dist/mutation/sandbox",
  ignorePatterns: ["/dist", "/result*"],
  incremental: false,
  reporters: ["progress-append-only", "json"],
  jsonReporter: { fileName: "dist/mutation/report.json" },
  allowConsoleColors: false,
}).runMutationTest();
report(results);

/** The part of agent/ to which a path belongs, if it is measured. */
function goalOf(path) {
  return Object.keys(GOALS).find((folder) => path === folder || path.startsWith(`${folder}/`));
}

/** Where the tests of a path are: all of its layer's, since they use each other's code. */
function testsOf(path) {
  return [goalOf(path).replace(/^agent/, "test/unit")];
}

function report(mutants) {
  const scores = new Map();
  for (const mutant of mutants) {
    const file = relative(ROOT, mutant.fileName);
    const missed = MISSED.includes(mutant.status);
    if (!missed && !DETECTED.includes(mutant.status)) continue;
    for (const name of [file, goalOf(file)]) {
      const score = scores.get(name) ?? { detected: 0, timedOut: 0, all: 0 };
      score.all += 1;
      if (!missed) score.detected += 1;
      if (mutant.status === "Timeout") score.timedOut += 1;
      scores.set(name, score);
    }
    if (!missed) continue;
    const { start } = mutant.location;
    console.log(`${mutant.status} ${file}:${start.line}:${start.column} ${mutant.mutatorName}`);
    console.log(`    ${mutant.replacement.replaceAll(/\s+/g, " ").slice(0, 160)}`);
  }
  let isBelow = false;
  for (const [name, { detected, timedOut, all }] of [...scores].sort(([a], [b]) =>
    a < b ? -1 : 1,
  )) {
    const percent = (100 * detected) / all;
    const goal = GOALS[name];
    if (goal !== undefined && percent < goal && targets.includes(name)) isBelow = true;
    const slow = timedOut > 0 ? ` (${timedOut} of them timed out)` : "";
    console.log(`${percent.toFixed(1).padStart(5)} %  ${detected} of ${all}${slow}  ${name}`);
  }
  if (isBelow) process.exitCode = 1;
}

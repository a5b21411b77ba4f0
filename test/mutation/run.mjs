// Mutation tests: changes the agent's code in small ways, one at a time, and runs the unit tests
// of that code. A mutant survives if no test fails; it shows what no test asserts.
//
//   npm run test:mutation                           core and host
//   npm run test:mutation -- agent/core/formats     one folder, or one file
//   npm run test:mutation -- --concurrency 1 …      with one process instead of two
//
// A file is judged by the unit tests of its own (agent/core/text/x.ts by
// test/unit/core/text/x.test.ts); a file that has none, by those of its folder. Files of
// agent/host other than its fetch/ are judged by all of its tests but the fetch's, since the
// scenarios play the whole agent. Prints each survivor and a score for each file. Exits with 1 if
// core or host is below its goal.
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Stryker } from "@stryker-mutator/core";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** The least score in percent of each folder that is measured. */
const GOALS = { "agent/core": 85, "agent/host": 75 };

/** Parts of the state machine, which its own tests play through. */
const MACHINE = "test/unit/core/update/machine.test.ts";
const TESTS_ELSEWHERE = {
  "agent/core/update/record.ts": MACHINE,
  "agent/core/update/states.ts": MACHINE,
  "agent/core/update/transitions.ts": `test/unit/core/update/transitions.test.ts,${MACHINE}`,
};

/** What counts as detected, and as missed. Mutants of another status do not count. */
const DETECTED = ["Killed", "Timeout"];
const MISSED = ["Survived", "NoCoverage"];

/** A longer text of a survivor is cut. */
const MAX_SHOWN = 160;

process.chdir(ROOT);
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { concurrency: { type: "string", default: "2" } },
});
const targets = (positionals.length > 0 ? positionals : Object.keys(GOALS)).map((path) =>
  relative(ROOT, resolve(path)),
);
for (const target of targets) {
  if (existsSync(target) && goalOf(target)) continue;
  console.error(`${target}: expected a folder or a file in ${Object.keys(GOALS).join(" or ")}`);
  process.exit(2);
}

/** From a file or folder of tests to the files that it judges. */
const judged = new Map();
for (const file of targets.flatMap(filesIn)) {
  const tests = testsOf(file);
  judged.set(tests, [...(judged.get(tests) ?? []), file]);
}

/** From a file, or a folder of GOALS, to how many of its mutants were detected. */
const scores = new Map();
for (const [tests, files] of judged) {
  const began = performance.now();
  const mutants = await mutate(files, tests);
  const seconds = Math.round((performance.now() - began) / 1000);
  const detected = mutants.filter(({ status }) => DETECTED.includes(status)).length;
  const timedOut = mutants.filter(({ status }) => status === "Timeout").length;
  console.log(
    `\n== ${files.join(" ")}, by ${tests}: ${detected} of ${mutants.length} mutants detected, ` +
      `${timedOut} of them by a time limit; ${seconds} s`,
  );
  for (const mutant of mutants) count(mutant);
}
sumUp();

/** The folder of GOALS to which a path belongs, or undefined. */
function goalOf(path) {
  return Object.keys(GOALS).find((folder) => path === folder || path.startsWith(`${folder}/`));
}

/** The TypeScript files at or below a path. */
function filesIn(path) {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) =>
      entry.isDirectory() ? filesIn(join(path, entry.name)) : [join(path, entry.name)],
    )
    .filter((file) => file.endsWith(".ts"));
}

/**
 * The tests that judge a file: its own, or those of the nearest folder that has tests; in host/,
 * other than its fetch/, all of host's but the fetch's, which know nothing of the rest.
 */
function testsOf(file) {
  if (file.startsWith("agent/host/") && !file.startsWith("agent/host/fetch/")) {
    return readdirSync("test/unit/host")
      .filter((folder) => folder !== "fetch")
      .map((folder) => `test/unit/host/${folder}`)
      .join(",");
  }
  if (TESTS_ELSEWHERE[file]) return TESTS_ELSEWHERE[file];
  let path = file.replace(/^agent/, "test/unit").replace(/\.ts$/, "");
  while (!existsSync(`${path}.test.ts`) && !existsSync(path)) path = dirname(path);
  return existsSync(`${path}.test.ts`) ? `${path}.test.ts` : path;
}

async function mutate(files, tests) {
  // Stryker's processes, and the Vitest in them, inherit it (vitest.config.ts).
  process.env.MUTATION_TESTS = tests;
  // Most of the time of a scenario is the loading of the agent; these files share what they load.
  process.env.MUTATION_ISOLATES = tests.includes("test/unit/host/scenarios") ? "" : "yes";
  const stryker = new Stryker({
    mutate: files,
    testRunner: "vitest-with-files",
    vitest: { configFile: "test/mutation/vitest.config.ts" },
    plugins: [join(ROOT, "test/mutation/stryker-plugins.mjs")],
    ignorers: ["unreachable"],
    coverageAnalysis: "perTest",
    concurrency: Number(values.concurrency),
    // A mutant counts as detected when its tests take too long. On a busy machine they must not.
    timeoutMS: 30_000,
    timeoutFactor: 4,
    dryRunTimeoutMinutes: 20,
    // The copy that is changed stays out of the sources.
    tempDirName: `dist/mutation-${process.pid}`,
    ignorePatterns: ["/dist", "/result*"],
    reporters: [],
    logLevel: "error",
    allowConsoleColors: false,
  });
  return stryker.runMutationTest();
}

/** Counts a mutant for its file and its folder of GOALS; prints it if it was missed. */
function count(mutant) {
  const file = relative(ROOT, mutant.fileName);
  const missed = MISSED.includes(mutant.status);
  if (!missed && !DETECTED.includes(mutant.status)) return;
  for (const name of [file, goalOf(file)]) {
    const score = scores.get(name) ?? { detected: 0, timedOut: 0, all: 0 };
    score.all += 1;
    if (!missed) score.detected += 1;
    if (mutant.status === "Timeout") score.timedOut += 1;
    scores.set(name, score);
  }
  if (!missed) return;
  const { start, end } = mutant.location;
  const line = readFileSync(mutant.fileName, "utf8").split("\n")[start.line - 1];
  const original = line.slice(
    start.column - 1,
    start.line === end.line ? end.column - 1 : undefined,
  );
  console.log(`${mutant.status} ${file}:${start.line}:${start.column} ${mutant.mutatorName}`);
  console.log(`  - ${shown(original)}\n  + ${shown(mutant.replacement)}`);
}

function shown(text) {
  return text.replaceAll(/\s+/g, " ").slice(0, MAX_SHOWN);
}

function sumUp() {
  console.log("");
  for (const [name, { detected, timedOut, all }] of [...scores].sort()) {
    const percent = (100 * detected) / all;
    const slow = timedOut > 0 ? ` (${timedOut} of them timed out)` : "";
    console.log(`${percent.toFixed(1).padStart(5)} %  ${detected} of ${all}${slow}  ${name}`);
    if (targets.includes(name) && percent < GOALS[name]) process.exitCode = 1;
  }
}

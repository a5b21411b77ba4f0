// Runs every check and suite, two at a time, goes on after a failure, and sums up. Each suite's
// output goes to a log of its own, which is printed when the suite fails.
//
//   node scripts/test-suites.mjs [quick]
//
// Ctrl-C, SIGTERM and SIGHUP end every process that a suite has started; a second one does not
// wait until the suites have cleaned up.
import { spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { clearInterval, setInterval } from "node:timers";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const LOGS = "dist/test-logs";

/**
 * Two suites at a time keep two cores busy: most suites run two tests at a time, and wait for
 * servers, containers and disks half of their time.
 */
const SIDE_BY_SIDE = 2;

/** How often the suites that still run are named. CI takes a long silence for a hang. */
const STILL_RUNNING_MS = 60_000;

/** How long a suite may clean up after SIGINT, and then after SIGTERM. */
const GRACE_MS = [20_000, 5_000];

/** Why hosts and power cuts cannot run here, or null. They install what else they lack. */
const whyNoHosts =
  process.getuid() === 0 && existsSync("/dev/loop-control") ? null : "needs root and loop devices";

/**
 * What runs, in the order of starting. The long ones come first.
 *
 * - script: of package.json.
 * - isQuick: runs with `quick` too.
 * - debian: installs packages or builds a root from Debian's archive. Only one such suite runs at
 *   a time, since apt locks out others, and hosts and power cuts share one root.
 * - leftOut: why it cannot run here, or null.
 */
const SUITES = [
  { name: "Unit tests", script: "test", isQuick: true },
  { name: "Lint", script: "lint", isQuick: true },
  { name: "Types", script: "typecheck", isQuick: true },
  { name: "Format", script: "format:check", isQuick: true },
  { name: "Generated documents", script: "docs", arguments: ["--check"], isQuick: true },
  { name: "Hosts", script: "test:hosts", debian: true, leftOut: whyNoHosts },
  { name: "Integration tests", script: "test:integration", isQuick: true },
  { name: "NixOS module", script: "test:nixos-module", isQuick: true },
  { name: "Kill tests", script: "test:kill" },
  { name: "Compatibility", script: "test:compatibility", isQuick: true },
  { name: "Faults", script: "test:faults" },
  {
    ...{ name: "Power cut", script: "test:power-cut", arguments: ["1"] },
    ...{ debian: true, leftOut: whyNoHosts },
  },
  { name: "Slow tests", script: "test:slow", debian: true },
];

process.chdir(ROOT);
const mode = process.argv[2] ?? "all";
if (mode !== "all" && mode !== "quick") {
  console.error(`${mode}: expected "quick" or nothing`);
  process.exit(2);
}

const begun = performance.now();
const chosen = SUITES.filter((suite) => suite.isQuick || mode === "all");
const waiting = chosen.filter((suite) => !suite.leftOut);
const running = new Set();
const finished = [];
let interrupted = false;
let isInHurry = false;

rmSync(LOGS, { recursive: true, force: true });
mkdirSync(LOGS, { recursive: true });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => void stop());
const heartbeat = setInterval(sayWhatRuns, STILL_RUNNING_MS);
await Promise.all(Array.from({ length: SIDE_BY_SIDE }, runWaiting));
clearInterval(heartbeat);
if (!interrupted) sumUp();

/** Starts one suite after the other until none is left that may start. */
async function runWaiting() {
  for (;;) {
    if (waiting.length === 0 || interrupted) return;
    const isDebianBusy = [...running].some(({ suite }) => suite.debian);
    const next = waiting.findIndex((suite) => !suite.debian || !isDebianBusy);
    if (next >= 0) await runSuite(...waiting.splice(next, 1));
    else await Promise.race([...running].map((run) => run.ended));
  }
}

async function runSuite(suite) {
  const log = join(LOGS, `${suite.name.toLowerCase().replaceAll(" ", "-")}.log`);
  const output = openSync(log, "w");
  // A process group of its own: the terminal's Ctrl-C reaches this process alone.
  const child = spawn("npm", ["run", "--silent", suite.script, "--", ...(suite.arguments ?? [])], {
    stdio: ["ignore", output, output],
    detached: true,
  });
  closeSync(output);
  const started = performance.now();
  const ended = new Promise((resolve) => {
    child.once("error", (error) => resolve(`cannot be started: ${error.message}`));
    child.once("exit", (code, signal) =>
      resolve(code === 0 ? null : `exit ${code ?? `by ${signal}`}`),
    );
  });
  const run = { suite, child, started, ended };
  running.add(run);
  const failure = await ended;
  running.delete(run);
  if (interrupted) return;
  const took = performance.now() - started;
  finished.push({ suite, failure, took, log });
  if (failure !== null) {
    console.log(`\n======== ${suite.name}: output (${log}) ========`);
    process.stdout.write(readFileSync(log));
    console.log(`======== ${suite.name}: end of output ========\n`);
  }
  const verdict = failure === null ? "passed" : `FAILED (${failure})`;
  const count = `${finished.length} of ${chosen.filter((it) => !it.leftOut).length}`;
  console.log(`${verdict}: ${suite.name}, ${duration(took)} (${count})`);
}

function sayWhatRuns() {
  const now = performance.now();
  const names = [...running].map(
    ({ suite, started }) => `${suite.name} ${duration(now - started)}`,
  );
  console.log(`running: ${names.join(", ")}`);
}

function sumUp() {
  console.log(`\nAfter ${duration(performance.now() - begun)}:`);
  for (const { suite, failure, took, log } of finished) {
    const verdict = failure === null ? "passed" : "FAILED";
    const where = failure === null ? "" : `  ${failure}, see ${log}`;
    console.log(`  ${verdict}  ${suite.name.padEnd(20)} ${duration(took).padStart(7)}${where}`);
  }
  for (const suite of chosen.filter((it) => it.leftOut)) {
    console.log(`  left out: ${suite.name} (${suite.leftOut})`);
  }
  const failed = finished.filter((it) => it.failure !== null).length;
  console.log(`${finished.length - failed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}

/** 95 000 becomes "1m35s". */
function duration(ms) {
  const seconds = Math.round(ms / 1000);
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}

/**
 * Ends what runs: SIGINT to each suite, so that it removes containers and mounts; then SIGTERM
 * and SIGKILL to whatever is left of all that it had started, in whichever process group.
 */
async function stop() {
  if (interrupted) {
    isInHurry = true;
    return;
  }
  interrupted = true;
  console.error("interrupted: ending what runs");
  const started = new Map();
  const left = () => {
    findDescendants(
      [...running].map(({ child }) => child.pid),
      started,
    );
    return [...started].filter(([pid, startTime]) => processAt(pid)?.startTime === startTime);
  };
  left();
  for (const { child } of running) signal(-child.pid, "SIGINT");
  for (const [step, grace] of GRACE_MS.entries()) {
    const end = performance.now() + grace;
    while (left().length > 0 && performance.now() < end && !isInHurry) await delay(100);
    for (const [pid] of left()) signal(pid, step === 0 ? "SIGTERM" : "SIGKILL");
  }
  process.exit(130);
}

/**
 * Adds processes and all that descend from them to a map from process ids to starting times. What
 * is in the map already stays a root: its children are found even if its own parent has ended.
 */
function findDescendants(roots, found) {
  const processes = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => [Number(name), processAt(Number(name))])
    .filter(([, stat]) => stat !== null);
  for (const [pid, { startTime }] of processes) {
    if (roots.includes(pid)) found.set(pid, startTime);
  }
  // Parents may have higher numbers than their children: repeat until nothing is added.
  for (let before = -1; before !== found.size;) {
    before = found.size;
    for (const [pid, { parent, startTime }] of processes) {
      if (found.has(parent)) found.set(pid, startTime);
    }
  }
}

/** A process's parent and starting time, or null if it has ended. */
function processAt(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // After the name, which is in parentheses and may hold anything: state, parent, …
    const [state, parent, ...others] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return state === "Z" ? null : { parent: Number(parent), startTime: others[17] };
  } catch {
    return null;
  }
}

function signal(pid, name) {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended.
  }
}

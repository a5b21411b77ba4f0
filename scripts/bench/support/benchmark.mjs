// The frame of every benchmark: what it needs is there, and what it leaves is nothing.
import { spawnSync } from "node:child_process";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildAgent } from "../../build.mjs";
import { installMissing } from "./debian-packages.mjs";
import { killRunning } from "./process-usage.mjs";
import { printMachine } from "./report.mjs";

/**
 * Runs `work` with a temporary `directory` (in $TMPDIR) and a freshly built `bundle` of
 * nixos-pull. Afterwards, also on failure, SIGINT and SIGTERM, everything given to
 * `onEnd` is called in reverse order and the directory is removed. Those steps are
 * synchronous: a signal handler cannot wait long.
 */
export async function runBenchmark(work) {
  installMissing();
  const directory = await mkdtemp(join(tmpdir(), "nixos-pull-bench-"));
  const steps = [];
  const onEnd = (step) => steps.push(step);
  const cleanUp = () => {
    killRunning();
    for (let step = steps.pop(); step; step = steps.pop()) step();
    // Not into what is still mounted, should that have gone wrong.
    spawnSync("rm", ["-rf", "--one-file-system", directory], { stdio: "inherit" });
  };
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ]) {
    process.once(signal, () => {
      cleanUp();
      process.exit(code);
    });
  }
  try {
    // A copy of its own, so that a build in between does not change what is measured.
    const bundle = await buildAgent(join(directory, "nixos-pull.cjs"));
    printMachine();
    await work({ directory, bundle, onEnd });
  } finally {
    cleanUp();
  }
}

/** Says on standard error what is going on; standard output has the tables alone. */
export function say(text) {
  console.error(`${new Date().toTimeString().slice(0, 8)} ${text}`);
}

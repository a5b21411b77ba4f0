// Runs programs to their end and says what they took.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";
import { clearInterval, setInterval } from "node:timers";

/** Peak memory grows only, so a sample this close to the end misses next to nothing. */
const SAMPLE_MS = 20;
/** /proc/PID/stat counts in USER_HZ, which is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

const running = new Set();

/**
 * Runs a program to its end. Gives its exit code, its output, the wall time, the CPU time
 * of it with everything it waited for, its own CPU time (sampled) and its own peak RSS
 * (sampled), children not included. `onSample(pid)` is called with every sample.
 */
export async function runMeasured(command, args, { env = process.env, onSample } = {}) {
  const childrenBefore = cpuTimes("self").children;
  const started = performance.now();
  // In its own process group, so that all of a pipeline can be ended.
  const child = spawn(command, args, { env, stdio: ["ignore", "pipe", "pipe"], detached: true });
  running.add(child);
  const usage = { ownCpuSeconds: 0, peakRssBytes: 0 };
  const sampler = setInterval(() => {
    Object.assign(usage, sample(child.pid) ?? {});
    onSample?.(child.pid);
  }, SAMPLE_MS);
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"]) {
    child[name].setEncoding("utf8").on("data", (text) => (output[name] += text));
  }
  try {
    const exitCode = await new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    const seconds = (performance.now() - started) / 1000;
    // Exact, since this process waits for one program at a time.
    const cpuSeconds = cpuTimes("self").children - childrenBefore;
    return { exitCode, ...output, seconds, cpuSeconds, ...usage };
  } finally {
    clearInterval(sampler);
    running.delete(child);
  }
}

/** As runMeasured, but throws with the program's words where it fails. */
export async function runChecked(command, args, options) {
  const result = await runMeasured(command, args, options);
  if (result.exitCode === 0) return result;
  const said = (result.stderr + result.stdout).trim().split("\n").slice(-20).join("\n");
  throw new Error(`${command} ${args[0] ?? ""}: exit code ${result.exitCode}\n${said}`);
}

/** CPU seconds of a process and of the children that it waited for (proc(5), /proc/PID/stat). */
export function cpuTimes(pid) {
  // The second field, the command, may hold anything; the rest follows its last parenthesis.
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const seconds = (from) =>
    (Number(fields[from - 3]) + Number(fields[from - 2])) / TICKS_PER_SECOND;
  return { own: seconds(14), children: seconds(16) };
}

/** Memory of a process in bytes: resident now and at most (proc(5), /proc/PID/status). */
export function memoryOf(pid) {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const bytes = (name) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) * 1024;
  return { residentBytes: bytes("VmRSS"), peakRssBytes: bytes("VmHWM") };
}

/** Ends what still runs, with all it started. */
export function killRunning() {
  for (const child of running) {
    try {
      process.kill(-child.pid, "SIGTERM");
    } catch {
      // It ended by itself in this moment.
    }
  }
}

function sample(pid) {
  try {
    const { peakRssBytes } = memoryOf(pid);
    // A process that is ending has no memory left to tell about.
    return Number.isNaN(peakRssBytes) ? null : { ownCpuSeconds: cpuTimes(pid).own, peakRssBytes };
  } catch {
    return null;
  }
}

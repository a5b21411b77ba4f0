import { spawnSync } from "node:child_process";
import { cp, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runProcess } from "../../agent/effects/process/subprocess.ts";
import { memoryOf, snapshotOf } from "../support/host-snapshot.ts";
import { testEnvironment, type CommandOutput } from "../support/nixos-pull.ts";
import { publishReleases, type ReleaseSeries } from "../support/release-series.ts";
import type { SandboxHost } from "../support/sandbox.ts";
import { suiteDirectory } from "../support/suite-directory.ts";
import { temporaryDirectory } from "../support/temporary.ts";
import { codeOf, expectConvergence, expectWhole } from "./support/host-end.ts";
import { pick, randomFor, samples, SEED, Tally } from "./support/sampling.ts";

const BUNDLE = fileURLToPath(new URL("../../dist/nixos-pull.cjs", import.meta.url));

/**
 * System calls by what they do, and what each may fail with (see their manual pages). write(2) is
 * not among them: libuv wakes its threads by it, and aborts if that fails, which no disk can
 * cause. For writes to full disks there is file-systems.test.ts.
 */
const CALLS = {
  rename: { calls: ["rename", "renameat", "renameat2"], errors: ["EIO", "ENOSPC", "EROFS"] },
  flush: { calls: ["fsync", "fdatasync"], errors: ["EIO", "ENOSPC", "EDQUOT"] },
  open: { calls: ["open", "openat"], errors: ["EIO", "EMFILE", "ENFILE", "EACCES", "ENOSPC"] },
  makeDirectory: { calls: ["mkdir", "mkdirat"], errors: ["EIO", "ENOSPC", "EDQUOT", "EROFS"] },
  remove: { calls: ["unlink", "unlinkat", "rmdir"], errors: ["EIO", "EROFS"] },
  execute: { calls: ["execve"], errors: ["EIO", "ENOMEM", "EACCES"] },
  start: { calls: ["clone", "clone3", "fork", "vfork"], errors: ["EAGAIN", "ENOMEM"] },
} as const;
type Kind = keyof typeof CALLS;
const KINDS = Object.keys(CALLS) as Kind[];

/** One fault: this call of its kind fails so, in each process that comes so far. */
interface Fault {
  readonly kind: Kind;
  readonly error: string;
  readonly when: number;
}

const hasStrace = spawnSync("strace", ["-qq", "true"]).status === 0;
const random = randomFor("system-calls");
const tally = new Tally();
const directory = suiteDirectory();
let series: ReleaseSeries;

beforeAll(async () => {
  series = await publishReleases(directory);
});
afterAll(() => {
  console.log(`system calls: ${tally.text()}`);
});

/** Runs the bundle and all that it starts below strace. */
async function traced(tracing: readonly string[], args: readonly string[]): Promise<CommandOutput> {
  const { exitCode, stdout, stderr, timedOut } = await runProcess(
    "strace",
    ["-f", "-qq", ...tracing, process.execPath, BUNDLE, ...args],
    // One thread for files, so that their calls have one order.
    { env: { ...testEnvironment(), UV_THREADPOOL_SIZE: "1" }, timeoutMs: 100_000 },
  );
  if (timedOut) throw new Error(`hangs: ${[...tracing, ...args].join(" ")}\n${stdout}${stderr}`);
  return { exitCode, stdout, stderr };
}

/** The numbers of all calls of each kind in a run without faults, each within its process. */
async function callsOf(args: readonly string[]): Promise<Record<Kind, number[]>> {
  const log = join(await temporaryDirectory(), "calls");
  const all = KINDS.flatMap((kind) => [...CALLS[kind].calls]);
  // A name that this machine does not have, as `fork` on arm64, is passed over.
  const { exitCode, stderr } = await traced(["-o", log, `-etrace=?${all.join(",?")}`], args);
  expect(exitCode, stderr).toBe(0);
  const found = Object.fromEntries(KINDS.map((kind) => [kind, [] as number[]]));
  const counts = new Map<string, number>();
  const threads = new Set<number>();
  for (const line of (await readFile(log, "utf8")).split("\n")) {
    const [, process, call] = /^(\d+) +(\w+)\(/.exec(line) ?? [];
    const kind = KINDS.find((one) => (CALLS[one].calls as readonly string[]).includes(call ?? ""));
    if (!kind) continue;
    const count = (counts.get(`${process} ${kind}`) ?? 0) + 1;
    counts.set(`${process} ${kind}`, count);
    if (line.includes("CLONE_THREAD")) threads.add(count);
    found[kind]?.push(count);
  }
  // Node hangs if it cannot start its own threads, before the agent is even loaded: the service
  // manager's watchdog is for that.
  found["start"] = found["start"]?.filter((count) => !threads.has(count)) ?? [];
  return found as Record<Kind, number[]>;
}

/** One after the other of all kinds, at a call that there is. */
function sampleOf(calls: Record<Kind, number[]>, count: number): Fault[] {
  const there = KINDS.filter((kind) => calls[kind].length > 0);
  return Array.from({ length: count }, (_, at) => {
    const kind = there[at % there.length] ?? "open";
    return { kind, error: pick(random, CALLS[kind].errors), when: pick(random, calls[kind]) };
  });
}

/** Runs the bundle with a fault; says too how often the fault came. */
async function injected(
  { kind, error, when }: Fault,
  args: readonly string[],
): Promise<CommandOutput & { readonly met: number }> {
  const log = join(await temporaryDirectory(), "calls");
  const calls = `?${CALLS[kind].calls.join(",?")}`;
  const fault = [`-etrace=${calls}`, `-einject=${calls}:error=${error}:when=${when}`];
  const output = await traced(["-o", log, "-esignal=none", ...fault], args);
  const met = (await readFile(log, "utf8")).split("(INJECTED)").length - 1;
  return { ...output, met };
}

const describeFault = ({ kind, error, when }: Fault): string => `${error} of ${kind} ${when}`;

/** A command that failed says by which code, unless it did not even begin. */
function expectNamed(
  fault: Fault,
  output: CommandOutput & { readonly met: number },
  isUntouched: boolean,
): void {
  const code = codeOf(output);
  const what = `${describeFault(fault)}: ${output.exitCode}\n${output.stdout}\n${output.stderr}`;
  if (code === null) expect(isUntouched, what).toBe(true);
  expect(code, what).not.toBe("INTERNAL");
  // Another order of the threads may have fewer calls in each process.
  tally.count(output.met === 0 ? "not met" : (code ?? "not started"));
}

async function host(): Promise<SandboxHost> {
  const mirror = await series.mirror(2);
  return series.host({ mirrors: [mirror.address] });
}

describe.skipIf(!hasStrace)(`a system call that fails (seed ${SEED})`, () => {
  test("in apply leaves a whole host, which takes the release at the next one", async () => {
    const clean = await host();
    const calls = await callsOf(["apply", "--json", "--config", clean.configFile]);
    expect(await clean.profileToplevel()).toBe(series.toplevels[2]);
    for (const fault of sampleOf(calls, samples(8))) {
      const faulty = await host();
      const before = [await snapshotOf(faulty), await memoryOf(faulty)];
      const args = ["apply", "--json", "--config", faulty.configFile];
      const output = await injected(fault, args);
      const isUntouched =
        JSON.stringify(before) ===
        JSON.stringify([await snapshotOf(faulty), await memoryOf(faulty)]);
      expectNamed(fault, output, isUntouched);
      const what = `${describeFault(fault)}\n${output.stdout}\n${output.stderr}`;
      try {
        await expectWhole(faulty, series);
        await expectConvergence(faulty, series);
      } catch (error) {
        throw new Error(`after ${what}`, { cause: error });
      }
    }
  });

  test("in publish leaves a mirror that hosts can follow, and the next publish succeeds", async () => {
    /** A mirror with release 1 and 2, and the arguments that publish release 3 to it. */
    const publisher = async (): Promise<{ mirror: string; address: string; args: string[] }> => {
      const mirror = await series.mirror(2);
      const key = join(await temporaryDirectory(), "key.secret");
      await cp(series.keyFile, key);
      const args = ["publish", "--json", "--mirror", mirror.directory, "--key", key];
      const system = ["--host", `web1=${series.toplevels[3]}`];
      return { mirror: mirror.directory, address: mirror.address, args: [...args, ...system] };
    };
    const calls = await callsOf((await publisher()).args);
    for (const fault of sampleOf(calls, samples(6))) {
      const { mirror, address, args } = await publisher();
      const output = await injected(fault, args);
      const what = `${describeFault(fault)}\n${output.stdout}\n${output.stderr}`;
      const verified = (): Promise<CommandOutput> =>
        plain(["verify", mirror, "--public-key", series.publicKey]);
      const after = await verified();
      expectNamed(fault, output, after.exitCode === 0);
      expect(after.exitCode, `${what}\n${after.stderr}`).toBe(0);
      const again = await plain(args);
      expect(again.exitCode, `${what}\n${again.stderr}`).toBe(0);
      const follower = await series.host({ mirrors: [address] });
      const followed = await follower.run("apply");
      expect(followed.exitCode, `${what}\n${followed.stderr}`).toBe(0);
      expect(await follower.profileToplevel()).toBe(series.toplevels[3]);
    }
  });
});

async function plain(args: readonly string[]): Promise<CommandOutput> {
  const options = { env: testEnvironment(), timeoutMs: 120_000 };
  return runProcess(process.execPath, [BUNDLE, ...args], options);
}

import { chmod, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import {
  describeFailure,
  runProcess,
  type ProcessOptions,
  type ProcessResult,
} from "../../../../agent/effects/process/subprocess.ts";
import { rejectionOf } from "../../../support/failure.ts";
import { expectEnd } from "../../../support/process-state.ts";

const ENV = { PATH: process.env["PATH"] ?? "" };

function run(
  command: string,
  args: readonly string[],
  options: Partial<ProcessOptions> = {},
): Promise<ProcessResult> {
  return runProcess(command, args, { env: ENV, timeoutMs: 100_000, ...options });
}

function shell(script: string, options: Partial<ProcessOptions> = {}): Promise<ProcessResult> {
  return run("/bin/sh", ["-c", script], options);
}

/** A time limit that is short to wait for, and leaves a shell time to start on a busy machine. */
const SHORT_MS = 2_000;

/** A directory of its own: tests that run side by side share no clean-up. */
async function inDirectory<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), "nixos-pull-test-"));
  try {
    return await work(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

// The time limits are real ones; the tests wait for them side by side.
describe.concurrent("a program", () => {
  test("gives its output, exit code and duration", async () => {
    const result = await shell("echo out; echo err >&2; exit 3");
    expect(result).toEqual({
      command: "/bin/sh",
      args: ["-c", "echo out; echo err >&2; exit 3"],
      ...{ exitCode: 3, signal: null, timedOut: false, stdout: "out\n", stderr: "err\n" },
      durationMs: expect.any(Number) as number,
    });
    expect(result.durationMs).toBeGreaterThan(0);
  });

  test("gets its arguments as they are, with nothing for a shell to read", async () => {
    const args = ["$HOME", "a b", "*", "'\"`", "; exit 1", "", "-n", "ü\n"];
    const { stdout } = await run("printf", ["%s|", ...args]);
    expect(stdout).toBe(args.map((arg) => `${arg}|`).join(""));
  });

  test("sees the environment that it is given and nothing of ours", async () => {
    const { stdout } = await run("/usr/bin/env", [], { env: { ONLY: "this" } });
    expect(stdout).toBe("ONLY=this\n");
  });

  test("has nothing to read", async () => {
    expect((await run("cat", [])).stdout).toBe("");
  });

  test("ended by a signal has no exit code", async () => {
    const result = await shell("kill -9 $$");
    expect(result).toMatchObject({ exitCode: null, signal: "SIGKILL", timedOut: false });
  });

  test("that does not exist is TOOL_MISSING, with the places that were looked at", async () => {
    const failure = await rejectionOf(
      run("nixos-pull-no-such-program", [], { env: { PATH: "/a:/b" } }),
    );
    expect(failure.code).toBe("TOOL_MISSING");
    expect(failure.message).toContain("nixos-pull-no-such-program");
    expect(failure.message).toContain("/a:/b");
  });

  test("that may not be executed is the operating system's error", async () => {
    await inDirectory(async (directory) => {
      const program = join(directory, "program");
      await writeFile(program, "#!/bin/sh\n");
      await chmod(program, 0o644);
      await expect(run(program, [])).rejects.toMatchObject({ code: "EACCES", syscall: /spawn/ });
    });
  });
});

describe.concurrent("output", () => {
  test("of a program is bounded: the start of the one stream, the end of the other", async () => {
    const script = "seq 1 5000; seq 1 5000 >&2";
    const { stdout, stderr } = await shell(script, { maxOutput: 1_000 });
    expect(stdout).toHaveLength(1_000);
    expect(stdout.startsWith("1\n2\n3\n")).toBe(true);
    expect(stderr).toHaveLength(1_000);
    expect(stderr.endsWith("4999\n5000\n")).toBe(true);
  });

  test("of 50 MB does not keep a program from ending", async () => {
    const { exitCode, stdout } = await shell("head -c 50000000 /dev/zero");
    expect(exitCode).toBe(0);
    expect(stdout.length).toBe(64 * 1024);
  });

  test("in another language is not torn between two pieces", async () => {
    const { stdout } = await shell("printf '\\303'; sleep 0.1; printf '\\274'");
    expect(stdout).toBe("ü");
  });

  test("that is no text does no harm", async () => {
    expect((await shell("printf 'a\\377\\000b'")).stdout).toBe("a\uFFFD\0b");
  });

  test("is passed on line by line, the last one without its newline too", async () => {
    const lines: string[] = [];
    const onErrorLine = (line: string): void => void lines.push(line);
    await shell("printf 'one\\ntw' >&2; sleep 0.1; printf 'o\\n\\nthree' >&2; echo out", {
      onErrorLine,
    });
    expect(lines).toEqual(["one", "two", "", "three"]);
  });

  test("of both streams can be merged", async () => {
    const lines: string[] = [];
    const result = await shell("echo 1; sleep 0.1; echo 2 >&2; sleep 0.1; echo 3", {
      mergeOutput: true,
      onErrorLine: (line) => void lines.push(line),
    });
    expect(result).toMatchObject({ stdout: "", stderr: "1\n2\n3\n" });
    expect(lines).toEqual(["1", "2", "3"]);
  });

  test("without line ends is passed on in bounded lines", async () => {
    let longest = 0;
    await shell("head -c 300000 /dev/zero | tr '\\0' x >&2", {
      maxOutput: 1_000,
      onErrorLine: (line) => void (longest = Math.max(longest, line.length)),
    });
    expect(longest).toBeLessThanOrEqual(1_000);
  });

  test("is bounded in bytes, as its options say", async () => {
    const { stdout } = await shell("for i in $(seq 1 100); do printf ü; done", { maxOutput: 100 });
    expect(Buffer.byteLength(stdout)).toBeLessThanOrEqual(100);
  });
});

describe.concurrent("a time limit", () => {
  test("ends a program politely", async () => {
    const result = await shell("trap 'echo bye; exit 7' TERM; while :; do sleep 0.05; done", {
      timeoutMs: SHORT_MS,
    });
    expect(result).toMatchObject({ timedOut: true, exitCode: 7, stdout: "bye\n" });
    expect(result.durationMs).toBeGreaterThanOrEqual(SHORT_MS - 10);
  });

  test("ends the whole process group, and by force where it does not listen", async () => {
    const script =
      "trap '' TERM; sh -c \"trap '' TERM; echo \\$\\$; while :; do sleep 0.1; done\" & wait; sleep 60";
    const result = await shell(script, { timeoutMs: SHORT_MS });
    expect(result).toMatchObject({ timedOut: true, exitCode: null, signal: "SIGKILL" });
    expect(result.durationMs).toBeGreaterThan(SHORT_MS + 4_900);
    await expectEnd(Number(result.stdout));
  });

  test("also ends what outlives the program that started it", async () => {
    const result = await shell("sleep 600 & echo $!", { timeoutMs: SHORT_MS });
    expect(result).toMatchObject({ timedOut: true, exitCode: 0 });
    await expectEnd(Number(result.stdout));
  });

  test("also ends children that ignore the signal to which the program listens", async () => {
    const script = `sh -c "trap '' TERM; echo \\$\\$; exec sleep 60" & sleep 60`;
    const { timedOut, stdout } = await shell(script, { timeoutMs: SHORT_MS });
    expect(timedOut).toBe(true);
    await expectEnd(Number(stdout));
  });

  test("does not touch a program that is quicker", async () => {
    expect(await shell("sleep 0.1", { timeoutMs: 100_000 })).toMatchObject({
      ...{ timedOut: false, exitCode: 0 },
    });
  });

  test("ends the wait also where a daemon keeps the output open", async () => {
    let daemon = 0;
    const running = shell("setsid sleep 600 & echo $! >&2", {
      timeoutMs: SHORT_MS,
      onErrorLine: (line) => void (daemon = Number(line)),
    });
    const outcome = await Promise.race([running, sleep(60_000, "still waiting", { ref: false })]);
    expect(daemon).toBeGreaterThan(1);
    process.kill(daemon, "SIGKILL");
    expect(outcome).not.toBe("still waiting");
  });
});

test("what the input throws ends the program", async () => {
  const input = (async function* () {
    yield Buffer.from("x");
    throw new Error("the source is gone");
  })();
  await expect(shell("cat; sleep 60", { input })).rejects.toThrow("the source is gone");
});

test("a descriptor of ours is the program's third", async () => {
  await inDirectory(async (directory) => {
    const file = await open(join(directory, "file"), "w+");
    await shell("echo written >&3", { descriptors: [file.fd] });
    await file.close();
    expect(await readFile(join(directory, "file"), "utf8")).toBe("written\n");
  });
});

describe.concurrent("an abort", () => {
  test("before the start starts nothing", async () => {
    const failure = await rejectionOf(
      run("nixos-pull-no-such-program", [], { signal: AbortSignal.abort() }),
    );
    expect(failure.code).toBe("INTERRUPTED");
    expect(failure.message).toBe("nixos-pull-no-such-program was not started");
  });

  test("ends the program and its children", async () => {
    const abort = new AbortController();
    let child = 0;
    const running = shell("sleep 600 & echo $! >&2; wait", {
      signal: abort.signal,
      onErrorLine: (line) => {
        child = Number(line);
        abort.abort();
      },
    });
    const failure = await rejectionOf(running);
    expect(failure.code).toBe("INTERRUPTED");
    await expectEnd(child);
  });

  test("that comes too late changes nothing", async () => {
    const abort = new AbortController();
    const result = await shell("echo done", { signal: abort.signal });
    abort.abort();
    expect(result).toMatchObject({ exitCode: 0, stdout: "done\n" });
  });
});

describe("a failure in words", () => {
  const result: ProcessResult = {
    ...{ command: "nix", args: ["copy"], exitCode: 1, signal: null, timedOut: false },
    ...{ stdout: "", stderr: "", durationMs: 1_700 },
  };

  test.each<[Partial<ProcessResult>, string]>([
    [{}, "nix ended with exit code 1"],
    [{ exitCode: null, signal: "SIGKILL" }, "nix was ended by SIGKILL"],
    [{ exitCode: null, signal: "SIGKILL", timedOut: true }, "nix did not finish within 2 s"],
    [{ stderr: "warning: x\n\nerror: y\n" }, "nix ended with exit code 1: warning: x | error: y"],
    [{ stderr: "1\n2\n3\n4\n5\n" }, "nix ended with exit code 1: 2 | 3 | 4 | 5"],
  ])("%j: %s", (changes, words) => {
    expect(describeFailure({ ...result, ...changes })).toBe(words);
  });
});

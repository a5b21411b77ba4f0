import { spawn } from "node:child_process";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { expectEnd } from "../../support/process-state.ts";
import { temporaryDirectory } from "../../support/temporary.ts";

const SCRIPT = fileURLToPath(new URL("../../../scripts/test-suites.mjs", import.meta.url));
const PASSES = { test: "true", lint: "true", typecheck: "true", "format:check": "true" };
const QUICK = {
  ...{
    ...PASSES,
    docs: "true",
    "test:integration": "true",
    "test:nixos-module": "true",
    "test:compatibility": "true",
  },
};

/** Starts the script in a checkout whose suites are these shell scripts. */
async function start(scripts: Readonly<Record<string, string>>, ...args: string[]) {
  const root = await temporaryDirectory();
  await mkdir(join(root, "scripts"));
  await copyFile(SCRIPT, join(root, "scripts/test-suites.mjs"));
  await writeFile(join(root, "package.json"), JSON.stringify({ type: "module", scripts }));
  const child = spawn(process.execPath, [join(root, "scripts/test-suites.mjs"), ...args], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  }
  const ended = new Promise<{ exitCode: number | null; output: string }>((resolve) => {
    child.once("close", (exitCode) => {
      resolve({ exitCode, output });
    });
  });
  return { root, child, ended, said: () => output };
}

describe("all suites", () => {
  test("that pass are counted in the last line, and nothing of their output is shown", async () => {
    const { root, ended } = await start({ ...QUICK, test: "echo all is well" }, "quick");
    const { exitCode, output } = await ended;
    expect(exitCode, output).toBe(0);
    expect(output.trimEnd().split("\n").at(-1)).toBe("8 passed, 0 failed");
    expect(output).not.toContain("all is well");
    expect(await readFile(join(root, "dist/test-logs/unit-tests.log"), "utf8")).toBe(
      "all is well\n",
    );
  });

  test("run to the end after a failure, whose output is shown whole", async () => {
    const { ended } = await start(
      { ...QUICK, lint: "echo one; echo two >&2; exit 3", docs: "kill -9 $$" },
      "quick",
    );
    const { exitCode, output } = await ended;
    expect(exitCode).toBe(1);
    expect(output).toContain("output (dist/test-logs/lint.log) ========\none\ntwo\n========");
    expect(output).toMatch(/^FAILED \(exit 3\): Lint, \d+s \(\d of 8\)$/m);
    expect(output).toMatch(/^ {2}FAILED {2}Generated documents .*see dist\/test-logs\//m);
    expect(output).toMatch(/^ {2}passed {2}Integration tests +\d+s$/m);
    expect(output.trimEnd().split("\n").at(-1)).toBe("6 passed, 2 failed");
  });

  test("are those of the mode, which must be one that there is", async () => {
    const { ended } = await start({}, "slow");
    expect(await ended).toEqual({ exitCode: 2, output: 'slow: expected "quick" or nothing\n' });
  });
});

test("an interrupt ends every process, in whatever process group; a second one at once", async () => {
  const { root, child, ended, said } = await start(
    {
      ...QUICK,
      test: 'setsid sh -c "echo $$ > daemon; sleep 600" & echo $$ > unit; sleep 600',
      lint: "echo $$ > lint; exec sleep 600",
    },
    "quick",
  );
  const pids = await Promise.all(
    ["daemon", "unit", "lint"].map((name) =>
      vi.waitFor(
        async () => {
          const text = await readFile(join(root, name), "utf8");
          expect(text).toMatch(/^\d+\n$/);
          return Number(text);
        },
        { timeout: 60_000, interval: 50 },
      ),
    ),
  );
  child.kill("SIGINT");
  await vi.waitFor(() => {
    expect(said()).toContain("interrupted");
  }, 60_000);
  // The daemon has not heard the first one; the second ends the wait for it.
  child.kill("SIGINT");
  expect(await ended).toEqual({ exitCode: 130, output: "interrupted: ending what runs\n" });
  for (const pid of pids) await expectEnd(pid);
});

import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import type { NixStore } from "../../../../agent/core/ports.ts";
import { childActivator } from "../../../../agent/effects/systemd/activator.ts";
import { recordingLog } from "../../../support/recording-log.ts";
import { samplePath } from "../../../support/sample-release.ts";
import { temporaryDirectory } from "../../../support/temporary.ts";

const TOPLEVEL = samplePath("nixos-system-web1-1");

/** A store whose files lie below a directory, with one system whose program is `script`. */
async function hostWith(script: string, timeout = 100_000) {
  const root = await temporaryDirectory();
  const program = join(root, TOPLEVEL, "bin/switch-to-configuration");
  await mkdir(join(program, ".."), { recursive: true });
  await writeFile(program, `#!/bin/sh\n${script}\n`);
  await chmod(program, 0o755);
  const store = { realPath: (path: string) => join(root, path) } as NixStore;
  const log = recordingLog();
  const settings = {
    store: `local?root=${root}`,
    activation: {
      timeout,
      runner: "child" as const,
      attempts: 3,
      retryWait: 1,
      confirm: "none" as const,
    },
  };
  return { root, program, log, activator: childActivator(settings, store, log) };
}

test("a system can be activated only if its program is there and executable", async () => {
  const { activator, program } = await hostWith("exit 0");
  expect(await activator.canActivate(TOPLEVEL)).toBe(true);
  expect(await activator.canActivate(samplePath("something-else"))).toBe(false);
  await writeFile(program, "");
  await chmod(program, 0o644);
  expect(await activator.canActivate(TOPLEVEL)).toBe(false);
});

test("the program gets the mode, and its exit code and lines are given back and logged", async () => {
  const { activator, log } = await hostWith('echo "mode $1 of $#"; echo warning >&2; exit 4');
  const result = await activator.activate(TOPLEVEL, "dry-activate");
  expect(result).toMatchObject({ exitCode: 4, timedOut: false });
  expect(result.lastLines.toSorted()).toEqual(["mode dry-activate of 1", "warning"]);
  expect(log.lines.map(({ message }) => message).sort()).toEqual(result.lastLines.toSorted());
  expect(log.lines[0]).toMatchObject({
    ...{ level: "info", fields: { component: "switch-to-configuration" } },
  });
});

test("of much output the lines that say most are kept, and the facts of all of it", async () => {
  const { activator } = await hostWith(
    "seq 1 50; echo \"Activation script snippet 'users' failed (1)\"; seq 52 500; exit 4",
  );
  const { lastLines, facts } = await activator.activate(TOPLEVEL, "switch");
  expect(facts).toMatchObject({ lineCount: 500, failedSnippets: [{ name: "users", code: 1 }] });
  expect(lastLines).toContain("Activation script snippet 'users' failed (1)");
  expect([lastLines[0], lastLines.at(-1)]).toEqual(["1", "500"]);
  expect(lastLines.length).toBeLessThan(60);
});

test("a run without checks says so to the program", async () => {
  const { activator } = await hostWith('echo "[$NIXOS_NO_CHECK]"');
  const options = { unchecked: true };
  expect((await activator.activate(TOPLEVEL, "test")).lastLines).toEqual(["[]"]);
  const unchecked = await activator.activate(TOPLEVEL, "test", undefined, options);
  expect(unchecked.lastLines).toEqual(["[1]"]);
});

test("the program sees where its files lie and no variables of ours", async () => {
  vi.stubEnv("NIXOS_INSTALL_BOOTLOADER", "evil");
  onTestFinished(() => void vi.unstubAllEnvs());
  const { activator, root } = await hostWith(
    'echo "[$NIXOS_INSTALL_BOOTLOADER] $NIXOS_PULL_SANDBOX_ROOT"',
  );
  expect((await activator.activate(TOPLEVEL, "switch")).lastLines).toEqual([`[] ${root}`]);
});

test("a program that takes too long is ended, and that is told", async () => {
  const { activator } = await hostWith("echo begun; sleep 600", 2_000);
  expect(await activator.activate(TOPLEVEL, "switch")).toMatchObject({
    ...{ exitCode: null, timedOut: true, lastLines: ["begun"] },
  });
});

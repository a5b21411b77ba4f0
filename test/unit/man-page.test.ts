import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { createProgram } from "../../agent/cli/program.ts";

const PAGE = fileURLToPath(new URL("../../agent/docs/nixos-pull.1", import.meta.url));
const noGroff = spawnSync("groff", ["--version"]).error !== undefined;

test("the manual page has every command that a person may use", async () => {
  const page = await readFile(PAGE, "utf8");
  const program = await createProgram({
    signal: new AbortController().signal,
    finish: () => undefined,
  });
  for (const command of program.createHelp().visibleCommands(program)) {
    if (command.name() === "help") continue;
    expect(page).toContain(`.SS nixos\\-pull ${command.name()}`);
  }
});

test.skipIf(noGroff)(
  `the manual page is read by groff without a word${noGroff ? " (SKIPPED: no groff)" : ""}`,
  () => {
    const read = spawnSync("groff", ["-man", "-Tutf8", "-ww", PAGE], { encoding: "utf8" });
    expect(read).toMatchObject({ status: 0, stderr: "" });
    expect(read.stdout).toContain("go back to the previous generation");
  },
);

import { spawnSync } from "node:child_process";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { describe, expect, test } from "vitest";
import { createProgram } from "../../agent/cli/program.ts";

const DIRECTORY = fileURLToPath(new URL("../../agent/docs/man", import.meta.url));
const PAGES = (await readdir(DIRECTORY)).sort();
const noGroff = spawnSync("groff", ["--version"]).error !== undefined;

/** The commands that a person may use, as their pages are called. */
function pagesOf(command: CommandUnknownOpts, name: string): string[] {
  const commands = command.createHelp().visibleCommands(command);
  const below = commands.filter((one) => one.name() !== "help");
  if (below.length === 0) return [`${name}.1`];
  return below.flatMap((one) => pagesOf(one, `${name}-${one.name()}`));
}

test("every command that a person may use has a page, and there are no others", async () => {
  const program = await createProgram({
    signal: new AbortController().signal,
    finish: () => undefined,
  });
  expect(PAGES).toEqual(["nixos-pull.1", ...pagesOf(program, "nixos-pull")].sort());
  const overview = await readFile(join(DIRECTORY, "nixos-pull.1"), "utf8");
  for (const page of PAGES.filter((name) => name !== "nixos-pull.1")) {
    expect(overview).toContain(`.BR ${page.slice(0, -2).replaceAll("-", "\\-")} (1)\n`);
  }
});

test("a page has the options of its command, and an example", async () => {
  const page = await readFile(join(DIRECTORY, "nixos-pull-publish.1"), "utf8");
  expect(page).toContain(".B \\-\\-keep\\-hosts\n");
  expect(page).toContain(".EX\nnixos\\-pull publish \\-\\-mirror /srv/mirror");
});

describe.skipIf(noGroff)(`groff reads${noGroff ? " (SKIPPED: no groff)" : ""}`, () => {
  test.each(PAGES)("%s without a warning", (page) => {
    const args = ["-man", "-Tutf8", "-P-cbou", "-ww", join(DIRECTORY, page)];
    const read = spawnSync("groff", args, { encoding: "utf8" });
    expect(read).toMatchObject({ status: 0, stderr: "" });
    expect(read.stdout).toContain("SYNOPSIS");
  });
});

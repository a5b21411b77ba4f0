import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { completionScript, optionsOf, SHELLS } from "../../../agent/cli/completion.ts";
import { createProgram } from "../../../agent/cli/program.ts";
import { ACTIVATION_MODES } from "../../../agent/core/formats/manifest.ts";

const program = await createProgram({
  signal: new AbortController().signal,
  finish: () => undefined,
});
const help = program.createHelp();
const bashScript = completionScript("bash", program);

/** What bash offers for these words, the last one half typed, in a directory with these files. */
async function offered(words: readonly string[], files: readonly string[] = []): Promise<string[]> {
  const directory = await mkdtemp(join(tmpdir(), "nixos-pull-"));
  try {
    for (const file of files) await writeFile(join(directory, file), "");
    const ask = [
      bashScript,
      'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nixos_pull',
      'printf "%s\\n" "${COMPREPLY[@]}"; complete -p nixos-pull >&2',
    ].join("\n");
    const { stdout, stderr } = spawnSync("bash", ["-c", ask, "bash", "nixos-pull", ...words], {
      cwd: directory,
      encoding: "utf8",
    });
    expect(stderr).toBe("complete -F _nixos_pull nixos-pull\n");
    return stdout.split("\n").filter((line) => line !== "");
  } finally {
    await rm(directory, { recursive: true });
  }
}

describe("completion in bash", () => {
  it("offers every visible command, and none that is hidden", async () => {
    const commands = (await offered([""])).filter((word) => !word.startsWith("-"));
    expect(commands.sort()).toEqual(
      help
        .visibleCommands(program)
        .map((command) => command.name())
        .sort(),
    );
    expect(commands).not.toContain("deadline");
  });

  it("offers every visible option of every command", async () => {
    for (const command of program.commands.filter((one) => one.name() !== "help")) {
      if (!help.visibleCommands(program).includes(command)) continue;
      const flags = optionsOf(command).flatMap(({ short, long }) => [short, long]);
      const expected = flags.filter((flag) => flag !== undefined);
      expect((await offered([command.name(), "-"])).sort()).toEqual(expected.sort());
    }
  }, 60_000);

  it.each([
    ["an option's choices", ["publish", "--mode", ""], [...ACTIVATION_MODES]],
    ["the choices that begin so", ["publish", "--mode", "dry"], ["dry-activate"]],
    ["choices after =", ["publish", "--mode", "=", "dry"], ["dry-activate"]],
    ["choices right at =", ["publish", "--mode", "="], [...ACTIVATION_MODES]],
    ["commands of a command", ["release", "pa"], ["pause"]],
    ["an argument's choices", ["completion", ""], [...SHELLS]],
    ["files for a file", ["check", "--config", "a"], ["a file's name.json"]],
    ["files for an argument", ["sign", "a"], ["a file's name.json"]],
    ["nothing for a number", ["history", "--lines", ""], []],
    ["nothing for an unknown command", ["chek", "-"], []],
  ])("offers %s", async (_, words, expected) => {
    const found = await offered(words, ["a file's name.json", "$(touch b)"]);
    expect(found.sort()).toEqual([...expected].sort());
  });
});

describe("completion scripts", () => {
  it.each(["zsh", "fish"] as const)("names every command and long option for %s", (shell) => {
    const script = completionScript(shell, program);
    for (const command of help.visibleCommands(program)) {
      expect(script).toContain(command.name());
      for (const { long } of optionsOf(command)) {
        expect(script).toContain(shell === "fish" ? `-l ${(long ?? "").slice(2)}` : long);
      }
    }
  });

  for (const shell of SHELLS) {
    const missing = spawnSync(shell, ["--version"]).error !== undefined;
    it.skipIf(missing)(
      `is read by ${shell}${missing ? " (SKIPPED: not installed)" : ""}`,
      async () => {
        const directory = await mkdtemp(join(tmpdir(), "nixos-pull-"));
        try {
          const file = join(directory, "script");
          await writeFile(file, completionScript(shell, program));
          expect(spawnSync(shell, ["-n", file], { encoding: "utf8" })).toMatchObject({
            status: 0,
            stderr: "",
          });
        } finally {
          await rm(directory, { recursive: true });
        }
      },
    );
  }
});
